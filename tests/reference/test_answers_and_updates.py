"""STG605 to STG609: what is made of the logits, how training moves, which epoch is kept and which number is printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as functional

from tests.checks.cases import TRAIN, VAL, healthy, samples, steps, train_pass, val_pass
from tests.checks.test_stopped_too_early import WAITS
from valgap.checks.shared.loss_course import loss_course
from valgap.reference import Stages, choosing, forward, losses, measuring, updating
from valgap.seams.looking.logit_gradients import LogitGradient, against_cross_entropy
from valgap.types import (
    STAGES,
    Closing,
    Compared,
    GradientStats,
    Intervention,
    Measured,
    OptimizerInfo,
    PrintedNumber,
    RunRecord,
    Untreatable,
)

VAL_IDS = np.arange(TRAIN, TRAIN + VAL)


def rescored(run: RunRecord, accuracy: float, **numbers: float) -> RunRecord:
    """The run, its validation scored again in eval mode with this accuracy."""
    return replace(run, closing=Closing(rescores={"val_eval": samples(VAL_IDS, accuracy, seed=7)}, numbers=numbers))


def test_eval_mode_that_gives_points_back_is_a_fault_of_the_forward_pass() -> None:
    run = healthy().run  # the last validation has 75 %
    found = forward.compare(rescored(run, 0.95))
    assert found.verdict == "at fault" and found.points is not None and found.points.value == pytest.approx(20)
    assert found.nats is not None and found.nats.low > 0
    last = run.last_validation
    assert last is not None
    assert forward.compare(replace(run, closing=Closing(rescores={"val_eval": last.samples}))).verdict == "sound"
    assert forward.compare(rescored(run, 0.4)).verdict == "gain"
    assert forward.compare(replace(run, closing=None)).verdict == "unknown"


@pytest.mark.parametrize(("before", "after", "fault"), [(0.8, 0.6, True), (0.8, 0.78, False), (0.6, 0.8, False)])
def test_what_stands_before_the_head_may_lose_what_the_layer_before_knew(before: float, after: float, fault: bool) -> None:
    run = rescored(healthy().run, 0.75, probe_before=before, probe_before_se=0.03, probe_final=after, probe_n=VAL)
    found = forward.compare(run)
    assert (found.verdict == "at fault") == fault
    assert not fault or (found.kind == "between" and found.points is not None and found.points.value == pytest.approx(20))


def test_shaken_logits_are_a_fault_of_the_forward_pass_by_their_loss() -> None:
    run = healthy().run
    last = run.last_validation
    assert last is not None
    # Images that are answered wrongly are answered wrongly in another way.
    wrong = last.samples.prediction != last.samples.target
    otherwise = np.where(wrong, (last.samples.target + 2) % 4, last.samples.prediction).astype(np.int32)
    loss = last.samples.loss + np.float32(0.2)
    for prediction, fault in ((otherwise, True), (last.samples.prediction, False)):  # the second: a factor on all logits
        shaken = replace(last, samples=replace(last.samples, loss=loss, prediction=prediction))
        again = Closing(rescores={"val_eval": last.samples})
        found = forward.compare(replace(run, passes=(*run.passes[:-1], shaken), closing=again))
        assert (found.verdict == "at fault") == fault and found.points is not None and found.points.value == 0
        assert not fault or "0.20 nats" in found.summary


@pytest.mark.parametrize(("change", "fault"), [(0.0, False), (0.01, False), (0.4, True), (np.nan, False)])
def test_answers_that_depend_on_batch_mates_in_eval_mode_are_a_fault_of_the_forward_pass(change: float, fault: bool) -> None:
    found = forward.compare(rescored(healthy().run, 0.75, batch_mate_change=change))
    assert (found.verdict == "at fault") == fault and (found.kind == "mates") == fault


@pytest.mark.parametrize(
    ("changed", "loaded", "confidence"),
    [((), 10, 0.0), ((8, 9), 10, 0.0), ((1,), 10, 0.75), (range(8), 10, 0.97), ((1,), 4, 0.0), ((0,), 10, 0.0)],
)
def test_weights_that_were_changed_after_the_load_are_a_fault_of_the_forward_pass(
    changed: Sequence[int], loaded: int, confidence: float
) -> None:
    run = healthy().run
    model = run.trained_model
    assert model is not None
    altered = np.where(np.isin(np.arange(loaded), list(changed)), 1, 0).astype(np.int8)
    names = tuple(f"layer{i}.weight" for i in range(loaded))
    own = replace(
        model,
        tensor_names=names,
        is_parameter=np.ones(loaded, bool),
        numel=np.full(loaded, 100, np.int64),
        altered=altered,
    )
    found = forward.compare(replace(run, models={**run.models, own.id: own}, closing=None))
    assert (found.verdict == "at fault") == (confidence > 0)
    assert not confidence or (found.confidence == confidence and found.kind == "altered" and "layer" in found.summary)


def by_batches(val: float, train: float) -> RunRecord:
    """A run whose eval mode answers 75 %, its batches' own statistics ``val``, and training images in eval mode ``train``."""
    run = healthy().run
    last = run.last_validation
    assert last is not None
    tables = {
        "val_eval": last.samples,
        "val_train": samples(VAL_IDS, val, seed=7),
        "train_eval": samples(np.arange(TRAIN), train, seed=5),
    }
    passes = [replace(p, optimizer_steps=40) if p.phase == "train" else p for p in run.passes]
    return replace(run, passes=tuple(passes), closing=Closing(rescores=tables))


def test_statistics_that_fit_neither_side_are_a_fault_of_the_forward_pass() -> None:
    found = forward.compare(by_batches(0.95, 0.5))
    assert found.verdict == "at fault" and found.kind == "statistics" and found.points is not None
    assert found.points.value == pytest.approx(20)
    assert forward.compare(by_batches(0.95, 0.95)).verdict == "sound"  # validation is of other images: theirs fit training
    assert forward.compare(by_batches(0.76, 0.5)).verdict == "sound"
    changed = by_batches(0.95, 0.5)  # of a loop whose own changes of its training images cannot be undone
    assert changed.closing is not None
    tables = {k.replace("train_eval", "train_augmented"): t for k, t in changed.closing.rescores.items()}
    assert forward.compare(replace(changed, closing=Closing(rescores=tables))).kind == "statistics"
    few = by_batches(0.95, 0.5)
    few = replace(few, passes=tuple(replace(p, optimizer_steps=2) for p in few.passes))
    assert forward.compare(few).verdict == "sound"  # they have not come to rest yet


def with_gradient(cosine: float, ratio: float, **loss: Any) -> RunRecord:
    run = healthy().run
    seen = GradientStats(cosine, ratio, 4)
    passes = [replace(p, gradient=seen) if p.phase == "train" else p for p in run.passes]
    if loss:
        passes = [replace(p, loss=replace(p.loss, **loss) if p.loss is not None else None) for p in passes]
    return replace(run, passes=tuple(passes))


BEHIND = Compared("at fault", "a probe is better", Measured(20.0, 12.0, 28.0), None, 0.9)
EVEN = Compared("sound", "", Measured(0.0, -5.0, 5.0))


def test_another_gradient_is_a_fault_only_where_training_stays_behind() -> None:
    summed = losses.compare(with_gradient(1.0, 20.0), BEHIND)
    assert summed.verdict == "at fault" and "a sum" in summed.summary and summed.points == BEHIND.points
    bent = losses.compare(with_gradient(0.3, 1.0), BEHIND)
    assert bent.verdict == "at fault" and "elsewhere" in bent.summary
    assert losses.compare(with_gradient(1.0, 20.0), EVEN).verdict == "sound"  # a small rate goes with a sum
    assert losses.compare(with_gradient(0.97, 0.3), BEHIND).verdict == "sound"  # smoothing and accumulation
    unknown = Compared("unknown", "", missing="probes")
    assert losses.compare(with_gradient(0.2, 1.0), unknown).verdict == "at fault"  # no loss that classifies pulls there
    assert losses.compare(with_gradient(0.6, 1.0), unknown).verdict == "sound"
    assert losses.compare(with_gradient(0.3, 1.0, target_kind="soft"), BEHIND).verdict == "unknown"
    # The features were shaped by that loss as well: what a probe makes of them excuses it only where hardly any answer is wrong.
    shaped = with_gradient(0.2, 1.0)
    assert losses.compare(shaped, EVEN).verdict == "at fault"
    head_alone = [replace(s, sums=shaped.states[0].sums, norms=shaped.states[0].norms) for s in shaped.states]
    assert losses.compare(replace(shaped, states=tuple(head_alone)), EVEN).verdict == "sound"
    right = [replace(p, samples=samples(p.samples.sample, 0.95)) if p.phase == "validation" else p for p in shaped.passes]
    assert losses.compare(replace(shaped, passes=tuple(right)), EVEN).verdict == "sound"
    assert losses.compare(healthy().run, BEHIND).verdict == "unknown"


def test_a_loss_that_parts_from_cross_entropy_later_on_is_bent_while_errors_are_many() -> None:
    run = with_gradient(1.0, 1.0)

    def later(cosine: float, right: float) -> RunRecord:
        trains = [p.index for p in run.of_phase("train")]
        passes = []
        for p in run.passes:
            if p.index in trains[1:]:
                p = replace(p, gradient=GradientStats(cosine, 1.0, 4), samples=samples(np.arange(TRAIN), right))
            passes.append(p)
        return replace(run, passes=tuple(passes))

    found = losses.compare(later(0.4, 0.5), BEHIND)
    assert found.verdict == "at fault" and found.kind == "bent" and "0.40" in found.summary
    assert losses.compare(later(0.4, 0.95), BEHIND).verdict == "sound"  # smoothing, where hardly anything is left to learn
    assert losses.compare(later(0.75, 0.5), BEHIND).verdict == "sound"


def test_a_loss_without_gradient_is_at_fault_whatever_else_is_known() -> None:
    """Clamped, rounded or detached: nothing moves, and that nothing moves is its work."""

    def silent(share: float) -> RunRecord:
        run = with_gradient(0.0, 1e-30)
        seen = [replace(p, gradient=replace(p.gradient, silent=share)) if p.gradient is not None else p for p in run.passes]
        return replace(run, passes=tuple(seen))

    found = losses.compare(silent(1.0), Compared("unknown", "", missing="probes"))
    assert found.verdict == "at fault" and "no gradient" in found.summary and found.confidence > 0.9
    worst = losses.compare(silent(0.95), BEHIND)  # only the worst of each batch teaches
    assert worst.verdict == "at fault" and "leaves out 95%" in worst.summary and worst.points == BEHIND.points


def test_overconfidence_is_counted_in_nats_of_the_loss() -> None:
    numbers = {"val_nll": 2.5, "val_nll_tempered": 1.5, "val_nll_gain_se": 0.1}
    found = losses.compare(rescored(with_gradient(1.0, 1.0), 0.7, **numbers), EVEN)
    assert found.verdict == "sound" and found.nats is not None and found.nats.value == pytest.approx(1.0)
    parts = losses.loss_parts(rescored(healthy().run, 0.7, **numbers, calibration_n=80))
    assert parts is not None and parts.value == 2.5 and parts.confidence == found.nats
    assert parts.confidence.value + parts.discrimination == pytest.approx(parts.value) and parts.n == 80
    assert losses.loss_parts(healthy().run) is None


def test_a_probe_that_is_better_than_every_epoch_blames_the_updates() -> None:
    run = healthy().run
    assert updating.compare(rescored(run, 0.5, probe_final=0.98, probe_n=100)).verdict == "at fault"
    # The third epoch had 75 %: that it was not kept is the choice's fault.
    assert updating.compare(rescored(run, 0.4, probe_final=0.75, probe_n=100)).verdict == "sound"
    forgot = updating.compare(rescored(run, 0.5, probe_final=0.5, probe_start=0.98, probe_n=100))
    assert forgot.verdict == "at fault" and "before training" in forgot.summary
    assert updating.compare(rescored(run, 0.5)).verdict == "unknown"


def improving(fall: float) -> RunRecord:
    """Five epochs of rising accuracy, the training loss lower by this share from each to the next."""
    run = healthy().run
    passes, loss = [], 2.0
    epochs = [(train_pass(2 * e, e, np.arange(TRAIN)), val_pass(2 * e + 1, e + 1, VAL_IDS)) for e in range(5)]
    for one in (p for pair in epochs for p in pair):
        if one.phase == "train":
            loss *= 1 - fall
            one = replace(one, samples=replace(one.samples, loss=np.full(len(one.samples), loss, np.float32)))
        passes.append(one)
    adam = OptimizerInfo(0, "Adam", ({"lr": 1e-3},), (5,))
    return replace(run, passes=tuple(passes), optimizers={0: adam})


def test_training_that_ends_while_it_gets_better_is_the_choice_of_the_end() -> None:
    short = rescored(improving(0.2), 0.5, probe_final=0.98, probe_n=100)
    stages = Stages(short, None)
    assert stages.compared("choose").kind == "early" and stages.compared("choose").verdict == "at fault"
    assert stages.compared("update").verdict == "sound"
    stuck = Stages(rescored(improving(0.0), 0.5, probe_final=0.98, probe_n=100), None)
    assert stuck.compared("update").verdict == "at fault" and stuck.compared("choose").verdict != "at fault"


def test_early_stopping_that_ends_it_on_its_way_up_is_the_choice_of_the_end_too() -> None:
    for waited, case in WAITS.items():
        stages = Stages(rescored(case.run, 0.65, probe_final=0.98, probe_n=100), None)
        assert stages.compared("choose").kind == "early", waited
        assert stages.compared("update").verdict == "sound"


def of_planned(epochs: int, given: int, accuracies: tuple[float, ...] = (0.4, 0.45)) -> RunRecord:
    """So many epochs of a loop that was given more, or not; each validates so."""
    passes = []
    for e in range(epochs):
        passes.append(train_pass(2 * e, e, np.arange(TRAIN), loops=((e, given),)))
        passes.append(val_pass(2 * e + 1, e + 1, VAL_IDS, samples=samples(VAL_IDS, accuracies[e])))
    return rescored(replace(healthy().run, passes=tuple(passes)), 0.45, probe_final=0.98, probe_n=100)


@pytest.mark.parametrize(
    ("epochs", "given", "accuracies", "early"),
    [(1, 4, (0.4,), True), (2, 5, (0.4, 0.45), True), (2, 2, (0.4, 0.45), False), (2, 5, (0.5, 0.3), False)],
    ids=["one of four", "two of five", "all", "it had got worse"],
)
def test_a_loop_that_is_left_early_is_the_choice_of_the_end(
    epochs: int, given: int, accuracies: tuple[float, ...], early: bool
) -> None:
    found = Stages(of_planned(epochs, given, accuracies), None).compared("choose")
    assert (found.kind == "early") == early
    assert not early or f"{epochs} of {given} epochs" in found.summary


def test_each_stage_has_its_reference_whatever_its_comparison_says() -> None:
    run = with_gradient(1.0, 1.0)
    stages = Stages(run, None)
    assert stages.compared("loss").verdict == "sound"
    named = {s: t.name for s in STAGES if isinstance(t := stages.reference(s), Intervention)}
    assert named["loss"] == "reference_loss" and named["update"] == "reference_update" and named["choose"] == "score_best_epoch"
    assert isinstance(stages.reference("forward"), Untreatable) and isinstance(stages.reference("measure"), Untreatable)
    last = run.passes[-1]
    drops = replace(run, passes=(*run.passes[:-1], replace(last, modes=replace(last.modes, dropout_training=1.0))))
    assert Stages(drops, None).reference("forward") == Intervention("eval_mode", {"phase": "validation"})


def test_a_large_gradient_that_hardly_moves_the_weights_is_no_fault_of_the_loss() -> None:
    run = with_gradient(1.0, 65_536.0)
    assert losses.compare(run, BEHIND).verdict == "at fault"
    small = [replace(p, steps=replace(p.steps, update_ratio=np.full(len(p.steps), 1e-5, np.float32))) for p in run.passes]
    assert losses.compare(replace(run, passes=tuple(small)), BEHIND).verdict == "sound"


@pytest.mark.parametrize(("steps", "reached", "verdict"), [(60, 0.5, "unknown"), (400, 0.5, "at fault"), (400, 0.9, "unknown")])
def test_a_training_whose_loss_falls_is_told_after_many_steps_and_far_behind(steps: int, reached: float, verdict: str) -> None:
    run = healthy().run
    passes = []
    for p in run.passes:
        if p.phase == "train":
            falls = np.linspace(3.0 - p.epoch, 2.0 - p.epoch, len(p.samples), dtype=np.float32)
            p = replace(p, optimizer_steps=steps, samples=replace(p.samples, loss=np.maximum(falls, 0.2)))
        passes.append(p)
    run = rescored(replace(run, passes=tuple(passes)), reached, probe_final=0.98, probe_n=100)
    course = loss_course(run)
    assert course is not None and course.still_falls()
    assert updating.settled(run, updating.compare(run)).verdict == verdict


@pytest.mark.parametrize(("between", "fault"), [(0.0, False), (0.1, False), (0.6, True), (5.0, True)])
def test_weights_that_the_program_moves_between_steps_are_a_fault_of_the_updates(between: float, fault: bool) -> None:
    run = healthy().run
    passes = tuple(
        replace(p, steps=replace(p.steps, outside_ratio=np.full(len(p.steps), between, np.float32))) for p in run.passes
    )
    found = Stages(replace(run, passes=passes), None).compared("update")
    assert (found.verdict == "at fault") == fault
    assert not fault or ("itself moves" in found.summary and isinstance(found.treatment, Intervention))


def test_a_short_training_whose_loss_seems_to_fall_is_under_way() -> None:
    """Three epochs of a dozen steps: in so few batches a fall is within the noise of the last quarter."""
    draw, run = np.random.default_rng(0), healthy().run
    passes = []
    for p in run.passes:
        if p.phase == "train":
            loss = np.maximum(0.02, (0.55, 0.4, 0.27)[min(p.epoch, 2)] + draw.normal(0, 0.3, len(p.samples)))
            p = replace(p, optimizer_steps=12, samples=replace(p.samples, loss=loss.astype(np.float32)))
        passes.append(p)
    run = rescored(replace(run, passes=tuple(passes)), 0.5, probe_final=0.98, probe_n=100)
    assert updating.compare(run).verdict == "at fault"
    assert updating.settled(run, updating.compare(run)).verdict == "unknown"


def minimised(added: np.ndarray, fall: float) -> RunRecord:
    """A training whose cross-entropy falls so far in its first epoch, and that minimises this (S,) beside it."""
    run = with_gradient(1.0, 1.0)
    passes = []
    for p in run.passes:
        if p.phase == "train":
            n = len(added)
            own = (2.3 - fall * np.linspace(0, 1, n)).astype(np.float32)
            batch = np.sort(np.arange(len(p.samples)) % n).astype(np.int32)
            table = replace(p.samples, batch=batch, loss=own[batch])
            p = replace(p, samples=table, num_batches=n, optimizer_steps=n, steps=steps(n, loss=(own + added).astype(np.float32)))
        passes.append(p)
    return replace(run, passes=tuple(passes))


def test_a_penalty_that_is_minimised_before_the_images_are_learnt_is_a_fault_of_the_loss() -> None:
    course, noise = np.linspace(2.5, 1.4, 16), np.random.default_rng(0).normal(0, 0.5, 16)
    found = losses.compare(minimised(course, 0.05), BEHIND)
    assert found.verdict == "at fault" and "penalty" in found.summary and isinstance(found.treatment, Untreatable)
    assert losses.compare(minimised(course, 1.0), BEHIND).verdict == "sound"  # the images are learnt beside it
    assert losses.compare(minimised(0.1 * course, 0.05), BEHIND).verdict == "sound"  # it is small
    assert losses.compare(minimised(course + noise, 0.05), BEHIND).verdict == "sound"  # another loss of the samples
    assert losses.compare(minimised(np.full(16, 2.5), 0.05), BEHIND).verdict == "sound"  # a constant


def test_a_goal_that_is_maximized_pulls_the_other_way() -> None:
    run = with_gradient(-1.0, 1.0)
    assert losses.compare(run, BEHIND).verdict == "at fault"
    groups = {i: replace(o, groups=tuple({**g, "maximize": True} for g in o.groups)) for i, o in run.optimizers.items()}
    run = replace(run, optimizers=groups)
    assert losses.compare(run, BEHIND).verdict == "sound"
    assert isinstance(losses.treatment(run), Untreatable)


def test_the_stages_of_training_are_treated_by_their_references() -> None:
    summed = losses.compare(with_gradient(1.0, 20.0), BEHIND).treatment
    assert isinstance(summed, Intervention) and summed.name == "reference_loss"
    assert summed.settings["targets"] == {"0": [i % 4 for i in range(TRAIN)]}
    assert summed.settings["classes"] == 4 and summed.settings["gathered"] == 1
    run = with_gradient(0.3, 1.0)
    gathered = [replace(p, backwards=4 * p.optimizer_steps) if p.phase == "train" else p for p in run.passes]
    bent = losses.compare(replace(run, passes=tuple(gathered)), BEHIND).treatment
    assert isinstance(bent, Intervention) and bent.settings["gathered"] == 4
    nameless = {k: replace(d, sample=None) for k, d in run.datasets.items()}
    assert isinstance(losses.compare(replace(run, datasets=nameless), BEHIND).treatment, Untreatable)
    behind = rescored(healthy().run, 0.5, probe_final=0.98, probe_n=100)
    steps = updating.compare(behind).treatment
    assert isinstance(steps, Intervention) and steps.name == "reference_update"
    assert steps.settings["steps"] == sum(p.optimizer_steps for p in behind.passes)
    seldom = replace(behind, passes=tuple(replace(p, backwards=16 * p.optimizer_steps) for p in behind.passes))
    often = updating.treatment(seldom)
    assert isinstance(often, Intervention) and often.settings["each_backward"] is True
    assert often.settings["steps"] == sum(p.backwards for p in seldom.of_phase("train"))
    own = {0: OptimizerInfo(0, "own update", ({},), (5,))}
    assert isinstance(updating.compare(replace(behind, optimizers=own)).treatment, Untreatable)


def course(*accuracies: float) -> RunRecord:
    """Validations over the same images with these accuracies; nested, so that a fall loses images."""
    ids = np.arange(TRAIN, TRAIN + 4 * VAL)
    passes = [val_pass(i, i + 1, ids, samples=samples(ids, a, seed=5)) for i, a in enumerate(accuracies)]
    return replace(healthy().run, passes=tuple(passes))


def test_a_better_epoch_counts_where_the_curve_does_not_jump() -> None:
    found = choosing.compare(course(0.5, 0.6, 0.7, 0.62, 0.58, 0.55), EVEN)
    assert found.verdict == "at fault" and found.points is not None and found.points.value == pytest.approx(15, abs=1)
    assert choosing.compare(course(0.5, 0.6, 0.7, 0.69, 0.7, 0.55), EVEN).verdict == "sound"  # one last epoch's noise
    assert choosing.compare(course(0.5, 0.7, 0.52, 0.69, 0.5, 0.7, 0.55), EVEN).verdict == "sound"
    assert choosing.compare(course(0.5, 0.6, 0.65, 0.7, 0.7), EVEN).verdict == "sound"
    assert choosing.compare(course(0.45, 0.6, 0.54, 0.44), EVEN).verdict == "unknown"


def printed(run: RunRecord, *values: float, **changes: Any) -> RunRecord:
    """The run, one print after each of its last validations, with these accuracies in percent."""
    passes = [p.index for p in run.of_phase("validation")][-len(values) :]
    numbers = [
        PrintedNumber("val acc", v, at, f"val acc {v}", 1, "accuracy", unit="percent", side="val", series="a", **changes)
        for v, at in zip(values, passes, strict=True)
    ]
    return replace(run, printed=tuple(numbers))


def test_counts_carried_into_the_second_and_last_validation() -> None:
    """One number is wrong, and is exactly what all images of both passes give; any other wrong number may be anything."""
    run = healthy().run
    first, last = run.of_phase("validation")[-2:]
    worse = replace(first, samples=replace(first.samples, prediction=np.zeros_like(first.samples.prediction)))
    run = replace(run, passes=tuple(worse if p is first else p for p in run.passes))
    shares = [100 * p.samples.accuracy for p in (worse, last)]
    found = measuring.compare(printed(run, shares[0], sum(shares) / 2))
    assert found.verdict == "at fault" and found.points is not None
    assert found.points.value == pytest.approx((shares[1] - shares[0]) / 2, abs=0.1)
    assert measuring.compare(printed(run, shares[0], sum(shares) / 2 + 4)).verdict != "at fault"
    assert measuring.compare(printed(run, *shares)).verdict == "sound"


def test_a_print_that_is_not_the_accuracy_of_the_logits() -> None:
    run = healthy().run
    right = [100 * p.samples.accuracy for p in run.of_phase("validation")]
    assert measuring.compare(printed(run, *right)).verdict == "sound"
    wrong = measuring.compare(printed(run, 22.3, 21.4, 23.8))
    assert wrong.verdict == "at fault" and wrong.points is not None
    assert wrong.points.low <= wrong.points.value <= wrong.points.high and wrong.points.low > 30
    assert measuring.compare(run).verdict == "unknown"
    by_class = [100 * float(p.samples.correct[p.samples.target == 0].mean()) for p in run.of_phase("validation")]
    assert measuring.compare(printed(run, *by_class)).verdict != "at fault"
    assert measuring.compare(printed(run, 22.3, 21.4, 23.8, kind="running")).verdict == "unknown"


def test_what_a_stage_before_explains_is_not_told_of_the_updates() -> None:
    stages = Stages(rescored(with_gradient(1.0, 20.0), 0.4, probe_final=0.98, probe_n=100), None)
    assert stages.compared("loss").verdict == "at fault"
    assert stages.compared("update").verdict == "sound"


def first_gradient(loss: Any, classes: int = 10, n: int = 64) -> tuple[float, float, float]:
    """(cosine, ratio, silent) of a loss's gradient at fresh logits, as the recorder takes it."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.nn.Parameter(0.3 * torch.randn(n, classes, generator=draw))
    target = torch.arange(n) % classes
    seen = LogitGradient(logits)
    loss(logits, target).backward()
    compared = against_cross_entropy(seen, logits.detach(), target)
    assert compared is not None
    return tuple(compared[0][:3].tolist())  # type: ignore[return-value]


def one_hot(target: torch.Tensor) -> torch.Tensor:
    return functional.one_hot(target, 10).float()


WEIGHTS = torch.linspace(1, 5, 10)
SOUND_LOSSES: dict[str, Any] = {
    "plain": functional.cross_entropy,
    "smoothed": lambda x, y: functional.cross_entropy(x, y, label_smoothing=0.1),
    "weights of 1 to 5": lambda x, y: functional.cross_entropy(x, y, weight=WEIGHTS),
    "focal": lambda x, y: ((1 - x.softmax(1).gather(1, y[:, None])) ** 2 * -x.log_softmax(1).gather(1, y[:, None])).mean(),
    "accumulated": lambda x, y: functional.cross_entropy(x, y) / 4,
    "hinge": functional.multi_margin_loss,
    "squared error": lambda x, y: functional.mse_loss(x, one_hot(y)),
    "one against the others": lambda x, y: functional.binary_cross_entropy_with_logits(x, one_hot(y)),
}


@pytest.mark.parametrize("name", SOUND_LOSSES)
def test_losses_that_classify_lie_above_the_line(name: str) -> None:
    cosine, ratio, silent = first_gradient(SOUND_LOSSES[name])
    assert cosine > losses.AWAY and ratio < losses.LARGE and silent == 0
    if name not in ("squared error", "one against the others", "hinge"):
        assert cosine > losses.ALIKE


def test_a_class_that_the_loss_leaves_out_is_told_from_samples_that_it_leaves_out() -> None:
    def silent(loss: Any) -> list[float]:
        draw = torch.Generator().manual_seed(0)
        logits, target = torch.nn.Parameter(0.3 * torch.randn(64, 10, generator=draw)), torch.arange(64) % 10
        seen = LogitGradient(logits)
        loss(logits, target).backward()
        compared = against_cross_entropy(seen, logits.detach(), target)
        assert compared is not None
        counts, left_out = compared[1]
        assert counts.tolist() == [7.0] * 4 + [6.0] * 6
        return left_out.tolist()  # type: ignore[no-any-return]

    ignored = silent(lambda x, y: functional.cross_entropy(x, y, ignore_index=3))
    assert ignored == [0, 0, 0, 7, 0, 0, 0, 0, 0, 0]
    worst = silent(lambda x, y: functional.cross_entropy(x, y, reduction="none").topk(32).values.mean())
    assert sum(worst) == 32 and not any(a == b for a, b in zip(worst, [7.0] * 4 + [6.0] * 6, strict=True))


def test_losses_like_cross_entropy_stay_so_while_errors_are_many() -> None:
    draw = torch.Generator().manual_seed(0)
    target = torch.arange(256) % 10
    told = torch.where(torch.rand(256, generator=draw) < 0.7, target, torch.randint(0, 10, (256,), generator=draw))
    start = 0.8 * torch.randn(256, 10, generator=draw) + 4 * functional.one_hot(told, 10)

    def cosine(loss: Any) -> float:
        logits = torch.nn.Parameter(start.clone())
        seen = LogitGradient(logits)
        loss(logits, target).backward()
        compared = against_cross_entropy(seen, logits.detach(), target)
        assert compared is not None
        return float(compared[0][0])

    like = {k: v for k, v in SOUND_LOSSES.items() if k not in ("squared error", "one against the others")}
    assert all(cosine(loss) > losses.LATER for loss in like.values())
    assert (
        cosine(lambda x, y: functional.cross_entropy(x, y) - 2 * -(x.softmax(1) * x.log_softmax(1)).sum(1).mean()) < losses.LATER
    )


def test_losses_that_do_not_lie_below_it_and_what_they_leave_out_is_counted() -> None:
    assert first_gradient(lambda x, y: -functional.cross_entropy(x, y))[0] == pytest.approx(-1)
    index = torch.arange(10.0)
    assert first_gradient(lambda x, y: functional.mse_loss((x.softmax(1) * index).sum(1), y.float()))[0] < losses.AWAY
    assert first_gradient(lambda x, y: functional.cross_entropy(x, y, reduction="sum"))[1] == pytest.approx(64, rel=1e-3)
    assert first_gradient(lambda x, y: functional.cross_entropy(x, y, ignore_index=3))[2] == pytest.approx(0.1, abs=0.02)
