"""TRN414."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import found, healthy, samples, steps, train_pass, val_pass, without
from valgap.checks.training import wrong_schedule
from valgap.checks.training.wrong_schedule import CHECK, loss_rise
from valgap.types import (
    Case,
    Clear,
    Closing,
    Finding,
    Intervention,
    NotApplicable,
    OptimizerInfo,
    Pass,
    ScheduleState,
    WeightsLoaded,
)


def rates(trace: np.ndarray, *schedules: ScheduleState, **numbers: float) -> Case:
    """Three epochs whose steps have these learning rates."""
    case = healthy(schedules=schedules, closing=Closing(rescores=healthy().run.closing.rescores, numbers=numbers))  # type: ignore[union-attr]
    parts = iter(np.array_split(np.asarray(trace, np.float32), 3))
    passes = []
    for p in case.run.passes:
        if p.phase == "train":
            part = next(parts)
            p = replace(p, steps=steps(len(part), learning_rate=part[:, None]), optimizer_steps=len(part))
        passes.append(p)
    return Case(replace(case.run, passes=tuple(passes)))


@pytest.mark.parametrize("size", [1, 3, 7])
def test_a_decay_per_batch_that_was_meant_per_epoch(size: int) -> None:
    trace = 0.1 * 0.1 ** (np.arange(90) // size)
    case = rates(trace, ScheduleState(0, 0, "StepLR", 90, {"step_size": size, "gamma": 0.1}))
    finding = found(CHECK.detect(case))
    assert finding.evidence[0].value == pytest.approx(1 - 3 * size / 90, abs=0.04)
    assert CHECK.treat is not None
    assert CHECK.treat(case, finding) == Intervention("schedule_steps", {"phase": "train", "every": "epoch"})


@pytest.mark.parametrize(
    ("kind", "turns", "faulty"), [("StepLR", 25, True), ("StepLR", 3, False), ("CosineAnnealingWarmRestarts", 25, False)]
)
def test_a_run_that_was_stopped_is_judged_by_what_it_was_given(kind: str, turns: int, faulty: bool) -> None:
    """Three of so many epochs of six steps: the rate is at a hundredth after fourteen."""
    case = rates(0.1 * 0.099 ** (np.arange(18) // 7), ScheduleState(4, 0, kind, 18, {"step_size": 7}))
    passes = tuple(replace(p, loops=((p.epoch, turns),)) if p.phase == "train" else p for p in case.run.passes)
    outcome = CHECK.detect(Case(replace(case.run, passes=passes)))
    assert isinstance(outcome, Finding if faulty else Clear)
    if isinstance(outcome, Finding):
        assert "of 150 (18 were seen)" in outcome.summary and outcome.confidence == 0.9


@pytest.mark.parametrize(("second", "faulty"), [(False, True), (True, False)])
def test_what_a_second_training_had_ahead_is_not_added_to_the_first(second: bool, faulty: bool) -> None:
    """Of 18 steps 8 are at a small rate; the last pass goes on for so long again, with an optimizer of its own."""
    case = rates(0.1 * 0.099 ** (np.arange(18) // 5), ScheduleState(4, 0, "StepLR", 18, {"step_size": 5}))
    passes = [replace(p, loops=((p.epoch, 25),)) if p.phase == "train" else p for p in case.run.passes]
    if second:
        last = next(p for p in reversed(passes) if p.phase == "train")
        own = steps(6, learning_rate=np.full((6, 1), 0.1, np.float32), optimizer=np.ones(6, np.int32))
        passes.append(replace(last, index=len(passes), epoch=last.epoch + 1, steps=own, loops=((last.epoch + 1, 25),)))
    assert isinstance(CHECK.detect(Case(replace(case.run, passes=tuple(passes)))), Finding if faulty else Clear)


@pytest.mark.parametrize("length", [90, 93, 87])  # the last batch of an epoch counts, or does not
def test_a_batch_length_stepped_per_epoch(length: int) -> None:
    case = rates(np.full(90, 4e-4), ScheduleState(4, 0, "OneCycleLR", 3, {"total_steps": length}))
    finding = found(CHECK.detect(case))
    assert CHECK.treat is not None
    assert CHECK.treat(case, finding) == Intervention("schedule_steps", {"phase": "train", "every": "batch"})


@pytest.mark.parametrize(("size", "sure"), [(7, True), (30, False)])
def test_a_rate_that_falls_between_epochs_only_may_be_meant(size: int, sure: bool) -> None:
    """Passes have 30 steps: a fall every 7 is inside of them, one every 30 is between them."""
    trace = 0.1 * 0.005 ** (np.arange(90) // size)
    outcome = CHECK.detect(rates(trace, ScheduleState(0, 0, "ExponentialLR", 90 // size, {"gamma": 0.005})))
    assert isinstance(outcome, Finding) and outcome.confidence == (0.9 if sure else 0.6)


def test_points_come_from_the_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrong_schedule, "backbone_trained", lambda run: 0.1)
    trace = 0.1 * 0.1 ** (np.arange(90) // 3)
    numbers = {"replay_recorded": 0.74, "replay_constant_rate": 0.85, "replay_constant_rate_p": 0.01, "replay_n": 100.0}
    assert found(CHECK.detect(rates(trace, **numbers))).severity_points == pytest.approx(11)


@pytest.mark.parametrize("trained", [True, False])
def test_what_the_layers_did_not_learn_is_told_by_the_number_of_steps(trained: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrong_schedule, "backbone_trained", lambda run: float(trained))
    case = rates(
        0.1 * 0.1 ** (np.arange(90) // 3),
        replay_recorded=0.74,
        replay_constant_rate=0.74,
        replay_constant_rate_p=0.9,
        replay_n=100.0,
    )
    val = case.run.last_validation
    assert val is not None and case.num_classes
    chance = 1 / case.num_classes
    whole = min(1.0, chance + (val.samples.accuracy - chance) * np.log(90) / np.log(3.3333))
    told = found(CHECK.detect(case)).severity_points
    assert told == pytest.approx(100 * (whole - val.samples.accuracy) if trained else 0.0, abs=0.05)


def test_sound_schedules_are_silent() -> None:
    t = np.linspace(0, 1, 90)
    assert isinstance(
        CHECK.detect(rates(0.05 * (1 + np.cos(np.pi * t)), ScheduleState(4, 0, "CosineAnnealingLR", 90, {"T_max": 90}))), Clear
    )
    assert isinstance(CHECK.detect(rates(0.1 * (1 - t))), Clear)
    longer = ScheduleState(4, 0, "OneCycleLR", 3, {"total_steps": 120})
    assert isinstance(CHECK.detect(rates(np.full(90, 4e-4), longer)), Clear)
    assert isinstance(CHECK.detect(rates(np.full(90, 1e-6))), Clear)
    assert isinstance(CHECK.detect(rates(np.full(90, 0.1), ScheduleState(4, 0, "StepLR", 3, {"step_size": 7}))), Clear)
    warm = np.concatenate([np.linspace(1e-5, 0.1, 30), np.full(60, 0.1)])
    assert isinstance(CHECK.detect(rates(warm)), Clear)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "train")), NotApplicable)


def resumed(rate: float, after: float, moved: bool = False, last: float | None = None, tensors: int = 5) -> Case:
    """The rate falls to a hundredth over two epochs; a new optimizer takes up the weights in the third, at ``rate``."""
    case = rates(np.concatenate([np.geomspace(0.1, 0.001, 60), np.linspace(rate, last if last is not None else rate, 30)]))
    passes = []
    for p in case.run.passes:
        if p.epoch == 2 and p.phase == "train":
            p = replace(p, steps=replace(p.steps, optimizer=np.ones(30, np.int32)))
        if p.phase == "validation":
            right = after if p.epoch == 3 else 0.8
            p = replace(p, samples=samples(p.samples.sample, right, seed=1))
        passes.append(p)
    info = {i: OptimizerInfo(i, "SGD", ({"lr": 0.1},), (n,)) for i, n in ((0, 5), (1, tensors))}
    other = WeightsLoaded("Net", False, True, 5, 5, 0, 0, (), after_pass=3, changed=True)
    return Case(replace(case.run, passes=tuple(passes), optimizers=info, weights_loaded=(other,) if moved else ()))


def test_a_second_module_that_was_given_the_first_one_s_weights() -> None:
    def another(shift: float) -> Case:
        run = resumed(0.1, after=0.6).run
        passes = tuple(replace(p, model=1, state=p.state + 1) if p.index >= 4 else p for p in run.passes)
        begin = replace(run.states[4], model=1, moment="start", sums=run.states[4].sums + shift)
        later = tuple(replace(s, model=1) for s in run.states[5:])
        return Case(replace(run, passes=passes, states=(*run.states[:5], begin, *later)))

    found(CHECK.detect(another(0.0)))
    assert isinstance(CHECK.detect(another(1.0)), Clear)  # its own weights: another training


def test_a_rate_that_begins_again_over_the_same_weights() -> None:
    finding = found(CHECK.detect(resumed(0.1, after=0.6)))
    assert finding.severity_points == pytest.approx(20)
    assert "0.1 where the rate had come down to 0.001" in finding.summary
    hint = CHECK.detect(resumed(0.1, after=0.8))
    assert isinstance(hint, Finding) and hint.confidence < 0.5  # nothing was lost by it


def test_other_rates_of_a_second_optimizer_are_silent() -> None:
    assert isinstance(CHECK.detect(resumed(0.001, after=0.6)), Clear)  # goes on where it was
    assert isinstance(CHECK.detect(resumed(0.1, after=0.6, last=0.001)), Clear)  # a warm restart, which falls again
    assert isinstance(CHECK.detect(resumed(0.1, after=0.6, moved=True)), Clear)  # other weights: another training
    assert isinstance(CHECK.detect(resumed(0.1, after=0.6, tensors=2)), Clear)  # other layers: another stage


def test_rises_are_told_in_standard_errors_of_the_samples_that_all_passes_know() -> None:
    def losses(values: list[float], first: int = 0) -> Pass:
        ids = np.arange(first, first + len(values))
        return val_pass(0, 0, ids, samples=replace(samples(ids), loss=np.array(values, np.float32)))

    before = losses([1.0, 1.0, 1.0, 1.0])
    rise = np.array([1.0, 2.0, 1.0, 2.0])
    expected = rise.mean() / (rise.std() / 2)
    assert loss_rise(before, [losses([2.0, 3.0, 2.0, 3.0])]) == pytest.approx(expected)
    assert loss_rise(before, [losses([1.0, 2.0, 1.0, 2.0]), losses([3.0, 4.0, 3.0, 4.0])]) == pytest.approx(expected)
    two = losses([9.0, 2.0, 3.0], first=-1)  # 0 and 1 are known to both
    assert loss_rise(losses([1.0, 1.0]), [two]) == pytest.approx(1.5 / (0.5 / np.sqrt(2)))
    assert loss_rise(before, []) == loss_rise(before, [losses([5.0], first=3)]) == 0


def plateau(val: list[float], rate: list[float]) -> Case:
    """A plateau schedule: val accuracies by epoch (losses go with them), and the rate of each epoch."""
    passes = []
    for epoch, (accuracy, own) in enumerate(zip(val, rate, strict=True)):
        learnt = samples(np.arange(200), min(0.95, 0.4 + 0.05 * epoch), seed=3)
        one = train_pass(2 * epoch, epoch, np.arange(200), samples=learnt)
        n = one.optimizer_steps
        passes.append(replace(one, steps=steps(n, learning_rate=np.full((n, 1), own, np.float32))))
        passes.append(
            val_pass(2 * epoch + 1, epoch + 1, np.arange(200, 300), samples=samples(np.arange(200, 300), accuracy, seed=5))
        )
    states = tuple(ScheduleState(2 * e, 0, "ReduceLROnPlateau", e, {"mode": "min"}) for e in range(len(val)))
    return Case(replace(healthy().run, passes=tuple(passes), schedules=states))


def test_a_plateau_schedule_that_lowers_the_rate_when_validation_gets_better() -> None:
    better = [0.4, 0.5, 0.6, 0.7, 0.72]
    finding = found(CHECK.detect(plateau(better, [0.1, 0.1, 0.05, 0.025, 0.0125])))
    assert "'min'" in finding.summary and "gets better" in finding.summary
    assert [e.value for e in finding.evidence if "right after the best epoch" in e.name] == [3]
    # After epochs that were no better it does what it is for.
    assert isinstance(CHECK.detect(plateau([0.4, 0.5, 0.5, 0.6, 0.6], [0.1, 0.1, 0.1, 0.05, 0.05])), Clear)
