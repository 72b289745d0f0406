"""Trial runs of long recipes are no fault, and what breaks in a few steps is still one."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.checks.cases import (
    TENSORS,
    TRAIN,
    VAL,
    dataset,
    found,
    healthy,
    inputs,
    loss_stats,
    measured,
    model,
    quiet,
    replayed,
    rescored,
    samples,
    steps,
    train_pass,
    trained_with,
    val_pass,
    with_phase,
)
from valgap.checks import CATALOGUE
from valgap.types import Case, Clear, Closing, Finding, LoaderInfo, NotApplicable, ScheduleState, WeightsLoaded

CHECKS = {c.code: c for c in CATALOGUE}


def run(losses: list[float], classes: int = 4, batch: int = 4, **changes: Any) -> Case:
    """One training pass of as many batches, with these mean losses, that broke off; then a whole validation."""
    n = batch * len(losses)
    table = samples(np.arange(n), 0.2, classes=classes, shuffle=True)
    spread = np.tile(np.linspace(-0.2, 0.2, batch), len(losses))
    loss = (np.repeat(losses, batch) * (1 + spread)).astype(np.float32)
    batches = np.repeat(np.arange(len(losses)), batch).astype(np.int32)
    trained = train_pass(
        0, 0, np.arange(n), samples=replace(table, loss=loss, batch=batches), complete=False, num_batches=len(losses),
        backwards=len(losses), optimizer_steps=len(losses), steps=steps(len(losses)), batch_sizes=np.full(len(losses), batch),
        loss=loss_stats(num_outputs=classes), state=1,
    )  # fmt: skip
    trained = replace(trained, **changes)
    after = val_pass(1, 1, np.arange(TRAIN, TRAIN + VAL), state=2)
    return healthy(passes=(trained, after), models={0: model(num_outputs=classes)})


def outcome(code: str, case: Case) -> object:
    return CHECKS[code].detect(case)


# -- the rate -------------------------------------------------------------------------------


def test_a_loss_that_falls_in_six_steps_of_a_thousand_classes_has_no_high_rate() -> None:
    assert isinstance(outcome("TRN401", run([7.04, 6.1, 5.0, 3.9, 2.2, 1.08], 1000)), Clear)


@pytest.mark.parametrize("losses", [[2.3, 2.9, 3.4, 3.1, 2.8, 2.6], [7.0, 7.4, 8.8, 9.4, 9.1, 8.9], [2.3], [2.3, 2.5]])
def test_rough_first_steps_are_not_judged(losses: list[float]) -> None:
    rough = run(losses, 1000, steps=steps(len(losses), update_ratio=np.full(len(losses), 0.3, np.float32)))
    assert quiet(outcome("TRN401", rough)) and quiet(outcome("TRN410", rough))


@pytest.mark.parametrize("losses", [[1.4, 9.0, 60.0, 400.0, 2e3, 9e3], [1.4, 300.0, 20.0, 3.0, 1.6, 1.9]])
def test_a_loss_that_multiplies_is_named_after_six_steps(losses: list[float]) -> None:
    found(outcome("TRN401", run(losses, batch=16)))


def test_the_guess_of_few_images_is_that_of_all_outputs() -> None:
    from valgap.checks.shared.loss_course import guess_loss

    assert guess_loss(run([7.0] * 6, 1000).run) == pytest.approx(np.log(1000), abs=0.1)
    assert guess_loss(run([1.4] * 100, 4).run) == pytest.approx(np.log(4), abs=0.05)


@pytest.mark.parametrize("rate", [1e-4, 1e-5])
def test_ten_times_the_rate_that_gains_in_a_few_steps_says_nothing_of_the_rate(rate: float) -> None:
    short = replayed(trained_with(run([1.4, 1.3, 1.3, 1.2]), "Adam", rate), 0.3, rate_ten=(0.7, 0.001))
    assert isinstance(outcome("TRN402", short), NotApplicable)
    found(outcome("TRN402", trained_with(replayed(healthy(), 0.3, rate_ten=(0.7, 0.001)), "Adam", rate)))


def test_more_steps_that_do_the_same_are_what_a_run_lacks() -> None:
    case = trained_with(replayed(healthy(), 0.3, rate_ten=(0.7, 0.001), longer=(0.5, 0.001)), "Adam", 1e-4)
    assert quiet(outcome("TRN402", case))


def test_a_warm_up_that_goes_on_is_not_judged() -> None:
    case = trained_with(replayed(healthy(), 0.3, rate_ten=(0.7, 0.001), momentum=(0.7, 0.001)), "SGD", 1e-4, momentum=0.0)
    passes = []
    for p in case.run.passes:
        if p.phase == "train":
            rising = np.linspace(1, 2, len(p.steps), dtype=np.float32)[:, None] * (1 + p.epoch) * 1e-6
            p = replace(p, steps=replace(p.steps, learning_rate=rising))
        passes.append(p)
    rising_case = Case(replace(case.run, passes=tuple(passes)))
    for code in ("TRN402", "TRN411", "TRN403"):
        assert isinstance(outcome(code, rising_case), NotApplicable), code


def test_plain_sgd_at_its_usual_rate_is_slow_in_nothing_yet() -> None:
    case = replayed(healthy(), 0.4, momentum=(0.8, 0.001))
    assert isinstance(outcome("TRN411", trained_with(case, "SGD", 0.1, momentum=0.0)), NotApplicable)
    found(outcome("TRN411", trained_with(case, "SGD", 1e-3, momentum=0.0)))


# -- schedules ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("StepLR", {"step_size": 30}),
        ("MultiStepLR", {"milestones": [30, 60]}),
        ("CosineAnnealingLR", {"T_max": 90}),
        ("CosineAnnealingLR", {"T_max": 200}),
        ("PolynomialLR", {"total_iters": 90}),
        ("CosineAnnealingWarmRestarts", {"T_0": 10}),
    ],
)
def test_a_schedule_longer_than_the_run_is_no_fault(kind: str, settings: dict[str, object]) -> None:
    case = healthy(schedules=(ScheduleState(4, 0, kind, 3, settings),))
    assert isinstance(outcome("TRN414", case), Clear)
    lacking = replayed(case, 0.4, longer=(0.8, 0.001))
    assert isinstance(outcome("TRN403", lacking), NotApplicable)
    found(outcome("TRN403", trained_with(replayed(healthy(), 0.4, longer=(0.8, 0.001)), "Adam", 1e-3)))


def test_a_length_in_batches_that_is_the_runs_own_is_named_once_an_epoch() -> None:
    def stepped(length: int, count: int) -> Case:
        passes = tuple(replace(p, optimizer_steps=count) if p.phase == "train" else p for p in healthy().run.passes)
        return healthy(passes=passes, schedules=(ScheduleState(4, 0, "CosineAnnealingLR", 3, {"T_max": length}),))

    found(outcome("TRN414", stepped(33, 11)))
    assert quiet(outcome("TRN414", stepped(30, 10)))  # thirty epochs are planned as often


def test_a_second_optimizer_at_a_low_rate_is_a_choice() -> None:
    passes = []
    for p in healthy().run.passes:
        if p.phase == "train":
            rate, number = (1e-2, 0) if p.epoch == 0 else (1e-5, 1)
            table = steps(10, learning_rate=np.full((10, 1), rate, np.float32), optimizer=np.full(10, number, np.int32))
            p = replace(p, steps=table)
        passes.append(p)
    assert isinstance(outcome("TRN414", healthy(passes=tuple(passes))), Clear)


# -- steps ----------------------------------------------------------------------------------


def test_batches_without_a_step_are_judged_when_there_are_enough() -> None:
    def unstepped(backwards: int, cleared: int) -> object:
        case = with_phase(healthy(), "train", backwards=backwards, optimizer_steps=0, zero_grads=cleared, steps=steps(0))
        return outcome("TRN413", case)

    assert isinstance(unstepped(2, 2), NotApplicable)  # a scaler that skips
    assert isinstance(unstepped(12, 1), NotApplicable)  # gradients gathered over sixty-four batches
    found(unstepped(12, 12))
    found(unstepped(40, 1))


# -- classes --------------------------------------------------------------------------------


def thousand(train: int, val: int, **changes: Any) -> Case:
    """Random labels of 1,000 classes without a class map; data sets that declare nothing, seen whole."""
    rng = np.random.default_rng(0)

    def table(ids: np.ndarray) -> Any:
        return replace(samples(ids, 0.1), target=rng.integers(0, 1000, len(ids)).astype(np.int32))

    a, b = np.arange(train), np.arange(train, train + val)
    passes = (train_pass(0, 0, a, samples=table(a), loss=loss_stats(num_outputs=1000)), val_pass(1, 1, b, samples=table(b)))
    sets = {i: dataset(i, ids, class_to_idx=None, targets=None) for i, ids in enumerate((a, b))}
    loaders = {i: LoaderInfo(i, i, 20, "RandomSampler", True, False, 0, 10) for i in (0, 1)}
    return healthy(passes=passes, datasets=sets, loaders=loaders, models={0: model(num_outputs=1000)}, **changes)


@pytest.mark.parametrize(("train", "val"), [(400, 80), (60, 200), (24, 12)])
def test_a_thousand_classes_of_few_images_lack_many_by_chance(train: int, val: int) -> None:
    for code in ("DAT111", "DAT112", "MOD307"):
        assert quiet(outcome(code, thousand(train, val))), code


def test_classes_that_a_random_split_would_hold_are_named() -> None:
    case = thousand(400, 80)
    one = replace(case.run.passes[1].samples, target=np.full(80, 1001, np.int32))
    found(outcome("DAT111", with_phase(case, "validation", samples=one)))
    few = replace(case.run.passes[0].samples, target=(np.arange(400) % 10).astype(np.int32))
    found(outcome("MOD307", with_phase(case, "train", samples=few)))


def test_the_first_batch_of_a_sorted_validation_is_not_the_whole() -> None:
    ids = np.arange(TRAIN, TRAIN + 16)
    table = replace(samples(ids), target=np.zeros(16, np.int32))
    cut = with_phase(healthy(), "validation", samples=table, complete=False)
    for code in ("DAT112", "EVA507"):
        assert quiet(outcome(code, cut)), code
    assert isinstance(outcome("EVA507", cut), NotApplicable)
    whole = Case(replace(cut.run, datasets={**cut.run.datasets, 1: dataset(1, ids, targets=np.zeros(16, np.int32))}))
    found(outcome("DAT112", whole))


def test_an_untrained_head_answers_as_after_a_renaming() -> None:
    n = VAL
    ids = np.arange(TRAIN, TRAIN + n)
    target = (ids % 4).astype(np.int32)
    renamed = replace(samples(ids), target=target, prediction=((target + 1) % 4).astype(np.int32))
    case = with_phase(healthy(), "validation", samples=renamed)
    maps = {i: replace(d, class_to_idx=None) for i, d in case.run.datasets.items()}
    known = rescored(Case(replace(case.run, datasets=maps)), val_eval=renamed)
    found(outcome("DAT102", known))
    hardly = rescored(
        with_phase(known, "train", samples=samples(np.arange(TRAIN), 0.1)),
        train_eval=samples(np.arange(TRAIN), 0.1),
        val_eval=renamed,
    )
    assert isinstance(outcome("DAT102", hardly), NotApplicable)


def test_uneven_counts_of_a_few_images_are_chance() -> None:
    from valgap.checks.data.class_imbalance import evenly_drawn

    assert evenly_drawn(np.array([1, 2, 5, 3, 2, 1, 4, 2, 3, 1])) > 0.001
    assert evenly_drawn(np.array([200, 40, 20, 10])) < 1e-6


# -- pictures -------------------------------------------------------------------------------


def test_one_batch_has_no_spread_of_colours() -> None:
    def case(batches: int) -> Case:
        ours, theirs = inputs(), inputs()
        centre = np.array([0.6, 0.4, 0.2], np.float32)
        noise = np.random.default_rng(0).normal(0, 0.01, (batches, 3)).astype(np.float32)
        ours = replace(ours, mean=centre, batch_means=centre + noise)
        theirs = replace(theirs, mean=centre[::-1] + 0.002)
        ids = np.arange(TRAIN, TRAIN + VAL)
        turned = with_phase(with_phase(healthy(), "train", inputs=ours), "validation", inputs=theirs)
        return rescored(turned, val_flipped_channels=samples(ids, 0.9), val_eval=samples(ids, 0.5))

    untrained = with_phase(case(1), "train", samples=samples(np.arange(TRAIN), 0.2))
    untrained = rescored(untrained, train_eval=samples(np.arange(TRAIN), 0.2))
    assert quiet(outcome("PRE203", untrained))
    found(outcome("PRE203", case(8)))


def test_mixed_images_are_not_normalised_otherwise() -> None:
    ours = inputs()
    mixed = with_phase(healthy(), "train", inputs=replace(ours, quantum=ours.quantum / 10, std=0.8 * ours.std))
    assert quiet(outcome("PRE201", mixed))
    scaled = with_phase(healthy(), "train", inputs=replace(ours, quantum=ours.quantum / 4, std=ours.std / 4))
    found(outcome("PRE201", scaled))


def test_made_up_noise_is_not_judged() -> None:
    sound = inputs()
    flat = np.full((2, 4), 0.001, np.float32)
    noise = replace(sound, autocorrelation=flat, batch_means=np.tile(sound.mean, (4, 1)))
    both = with_phase(with_phase(healthy(), "train", inputs=noise), "validation", inputs=noise)
    assert isinstance(outcome("PRE208", both), NotApplicable)
    shuffled = replace(sound, autocorrelation=flat)
    found(outcome("PRE208", with_phase(with_phase(healthy(), "train", inputs=shuffled), "validation", inputs=shuffled)))


# -- the model ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "outputs", "low", "high"),
    [("cross_entropy", 2, 0.1, 0.6), ("binary_cross_entropy_with_logits", 1, 0.05, 0.3), ("cross_entropy", 4, 0.0, 0.0)],
)
def test_small_first_answers_are_no_sigmoid(name: str, outputs: int, low: float, high: float) -> None:
    sums = {"row_sum_min": 2 * low, "row_sum_max": 2 * high}
    plain = loss_stats(name=name, num_outputs=outputs, logit_min=low, logit_max=high, zero_fraction=float(high == 0), **sums)
    assert quiet(outcome("MOD306", with_phase(healthy(), "train", loss=plain)))
    filled = replace(plain, logit_min=0.02, logit_max=0.99, row_sum_min=0.3, row_sum_max=1.6, zero_fraction=0.0)
    found(outcome("MOD306", with_phase(healthy(), "train", loss=filled)))


def test_weights_that_are_loaded_for_a_test_do_not_clear_new_ones() -> None:
    frozen = np.array([t[0].startswith("fc") for t in TENSORS])
    new = model(fresh_batchnorm=1.0, pretrained=False, requires_grad=frozen, loaded_fraction=float("nan"))
    skipped = WeightsLoaded("Net", True, False, 100, 2, 98, 98, (), after_pass=-1)
    later = WeightsLoaded("Net", True, True, 7, 7, 0, 0, (), after_pass=5)
    unsure = replace(new, fresh_batchnorm=float("nan"))
    assert found(outcome("MOD301", healthy(models={0: unsure}, weights_loaded=(skipped, later)))).confidence > 0.9
    fitting = replace(later, after_pass=-1)
    assert not isinstance(
        outcome("MOD301", healthy(models={0: replace(unsure, pretrained=True)}, weights_loaded=(skipped, fitting))), Finding
    )


def test_an_average_lags_in_a_trial() -> None:
    copy, ids = replace(model(id=1), trained=False), np.arange(TRAIN, TRAIN + VAL)
    closing = Closing(rescores={"val_eval": samples(ids, 0.2), "val_trained": samples(ids)})
    sound = healthy(models={0: model(), 1: copy}, closing=closing)
    case = with_phase(sound, "validation", model=1, samples=samples(ids, 0.2))
    found(outcome("MOD311", case))
    trial = Case(replace(case.run, schedules=(ScheduleState(4, 0, "CosineAnnealingLR", 3, {"T_max": 90}),)))
    assert isinstance(outcome("MOD311", trial), NotApplicable)


def test_random_answers_that_are_too_sure_are_not_overconfidence() -> None:
    numbers = {
        "val_temperature": 8.0, "val_nll": 3.0, "val_nll_tempered": 1.0, "val_nll_gain_se": 0.1, "val_ece": 0.3,
        "val_ece_tempered": 0.1, "calibration_n": 100.0,
    }  # fmt: skip
    assert isinstance(outcome("EVA505", measured(healthy(), **numbers)), Finding)  # a hint, where the loss does not rise alone
    assert quiet(outcome("EVA505", measured(healthy(), **{**numbers, "val_nll_tempered": 1.38})))
    high = replace(samples(np.arange(TRAIN), 0.3), loss=np.full(TRAIN, 3.1, np.float32))
    untrained = rescored(with_phase(healthy(), "train", samples=high), train_eval=high)
    assert isinstance(outcome("EVA505", measured(untrained, **numbers)), NotApplicable)


def test_a_closing_score_of_other_weights_is_not_compared_with_the_record() -> None:
    from valgap.checks.shared.rescored import over_recorded

    case = healthy()
    last = case.run.last_validation
    assert last is not None
    assert over_recorded(case.run, last, last.samples) is not None
    load = WeightsLoaded("Net", False, True, 7, 7, 0, 0, (), after_pass=last.index, changed=True)
    assert over_recorded(replace(case.run, weights_loaded=(load,)), last, last.samples) is None
    # What validation itself moved in BatchNorm is put back: these are the weights with which it began.
    for state, same in ((last.index - 1, True), (last.index, True), (last.index - 2, False)):
        back = replace(case.run, weights_loaded=(replace(load, state_of_pass=state),))
        assert (over_recorded(back, last, last.samples) is not None) == same
