"""PRE201."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.checks.cases import (
    MEAN,
    NORMALIZE,
    STD,
    TRAIN,
    VAL,
    dataset,
    found,
    healthy,
    inputs,
    model,
    quiet,
    rescored,
    samples,
    with_phase,
    without,
)
from valgap.checks.preprocessing.normalization_mismatch import CHECK
from valgap.checks.shared.levels import level_ratio
from valgap.types import Case, Clear, InputStats, Intervention, NotApplicable

IDS = np.arange(TRAIN, TRAIN + VAL)


def val_inputs(stats: InputStats, *norms: tuple[Any, Any]) -> Case:
    """Val images with these statistics, after a transform with these Normalize steps."""
    case = with_phase(healthy(), "validation", inputs=stats)
    steps = tuple(replace(NORMALIZE, mean=m, std=s) for m, s in norms)
    return Case(replace(case.run, datasets={0: case.run.datasets[0], 1: dataset(1, IDS, transform=steps)}))


@pytest.mark.parametrize(
    ("mean", "std"), [((0.0,) * 3, (1.0,) * 3), ((0.5,) * 3, (0.5,) * 3), ((0.48, 0.45, 0.4), (0.3, 0.3, 0.3))]
)
def test_levels_give_the_ratio_of_the_two_normalisations(mean: Any, std: Any) -> None:
    case = val_inputs(inputs(mean, std), *([] if std[0] == 1 else [(mean, std)]))
    train, val = case.run.last_train, case.run.last_validation
    assert train is not None and val is not None and train.inputs is not None and val.inputs is not None
    assert level_ratio(train.inputs, val.inputs) == pytest.approx(np.median(np.array(STD) / np.array(std)), rel=1e-4)
    assert found(CHECK.detect(case)).confidence > 0.9


def test_applied_twice() -> None:
    twice = inputs(np.array(MEAN) + np.array(MEAN) * np.array(STD), np.array(STD) ** 2)
    assert found(CHECK.detect(val_inputs(twice, (MEAN, STD), (MEAN, STD))))


def both(stats: InputStats) -> Case:
    """Pretrained weights, and both sides with these statistics."""
    return with_phase(with_phase(healthy(), "train", inputs=stats), "validation", inputs=stats)


def test_applied_twice_on_both_sides() -> None:
    twice = inputs(np.array(MEAN) + np.array(MEAN) * np.array(STD), np.array(STD) ** 2)
    case = both(twice)
    assert "normalised twice" in found(CHECK.detect(case)).summary
    scratch = replace(case.run, models={0: model(pretrained=False)})
    assert isinstance(CHECK.detect(Case(scratch)), Clear)  # fresh weights take any values
    once = inputs(MEAN, STD)
    dark = replace(once, mean=once.mean - 1.6, std=once.std * 0.4)  # photographs at night
    own = replace(once, maximum=np.full(3, 8.0, np.float32))  # their own constants: rare white reaches far, the mean is 0
    assert isinstance(CHECK.detect(both(dark)), Clear) and isinstance(CHECK.detect(both(own)), Clear)


@pytest.mark.parametrize("after", [0.6, 0.9])
def test_points_are_re_scored(after: float) -> None:
    case = val_inputs(inputs((0.0,) * 3, (1.0,) * 3))
    case = rescored(case, val_eval=samples(IDS, 0.5), val_train_norm=samples(IDS, after))
    assert found(CHECK.detect(case)).severity_points == pytest.approx(100 * (after - 0.5))


def test_sound_dark_and_blurred_val_are_silent() -> None:
    assert isinstance(CHECK.detect(healthy()), Clear)
    dark = replace(inputs(pixel_mean=0.15, pixel_std=0.1), maximum=inputs().minimum + 1.5)
    assert quiet(CHECK.detect(val_inputs(dark, (MEAN, STD))))


def test_scale_of_255_is_left_to_pre202() -> None:
    raw = replace(inputs((0.0,) * 3, (1.0,) * 3), quantum=np.ones(3, np.float32))
    assert quiet(CHECK.detect(val_inputs(raw)))


def test_other_than_the_weights_expect_needs_a_measured_gain() -> None:
    assert isinstance(CHECK.detect(rescored(healthy(), val_eval=samples(IDS, 0.7), val_weights_norm=samples(IDS, 0.71))), Clear)
    case = rescored(healthy(), val_eval=samples(IDS, 0.5), val_weights_norm=samples(IDS, 0.8))
    assert found(CHECK.detect(case)).severity_points == pytest.approx(30)


@pytest.mark.parametrize("after", [0.5, 0.62])
def test_never_normalised(after: float) -> None:
    plain = inputs((0.0,) * 3, (1.0,) * 3)
    case = with_phase(val_inputs(plain), "train", inputs=plain)
    case = rescored(case, val_eval=samples(IDS, 0.6), val_weights_norm=samples(IDS, after))
    whole = Case(replace(case.run, models={0: model(expected_whole=True)}))
    assert 0.5 <= found(CHECK.detect(whole)).confidence < 0.8
    assert quiet(CHECK.detect(case))  # a module around the weights may normalise by itself
    fresh = Case(replace(case.run, models={0: model(expected_whole=True, pretrained=False)}))
    assert quiet(CHECK.detect(fresh))
    other = Case(replace(case.run, models={0: model(expected_whole=True, expected_std=(1.0,) * 3, expected_mean=(0.0,) * 3)}))
    assert quiet(CHECK.detect(other))


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "validation")), NotApplicable)
    assert isinstance(CHECK.detect(with_phase(healthy(), "validation", inputs=None)), NotApplicable)


def test_a_normalisation_within_a_function_is_told_by_the_values() -> None:
    same = inputs(MEAN, STD)
    lit = replace(same, minimum=same.minimum + 0.5 * same.std)  # no black in these images
    assert isinstance(CHECK.detect(val_inputs(lit)), Clear)  # its transform declares no Normalize, and yet it was normalised


def test_light_that_is_drawn_anew_in_every_pass_is_no_other_normalisation() -> None:
    case = val_inputs(inputs(MEAN, np.array(STD) * 1.08), (MEAN, STD))
    assert found(CHECK.detect(case))
    factors = iter((1.0, 0.93, 1.08, 0.97, 1.05, 0.99))
    passes = tuple(
        replace(p, inputs=inputs(MEAN, np.array(STD) * next(factors))) if p.phase == "train" else p for p in case.run.passes
    )
    assert sum(p.phase == "train" for p in passes) > 1
    assert isinstance(CHECK.detect(Case(replace(case.run, passes=passes))), Clear)


TWICE = inputs(np.array(MEAN) + np.array(MEAN) * np.array(STD), np.array(STD) ** 2)


def with_steps(case: Case, steps: tuple[Any, ...] | None) -> Case:
    """The same with these transform steps in all data sets; None: not known."""
    return Case(replace(case.run, datasets={i: replace(d, transform=steps) for i, d in case.run.datasets.items()}))


@pytest.mark.parametrize("steps", [None, (), (NORMALIZE,)], ids=["unknown", "none", "once"])
def test_normalised_twice_where_no_transform_says_so(steps: tuple[Any, ...] | None) -> None:
    case = with_steps(both(TWICE), steps)
    finding = found(CHECK.detect(case))
    assert CHECK.treat is not None
    treatment = CHECK.treat(case, finding)
    assert isinstance(treatment, Intervention) and treatment.settings["phase"] == "both"
    scale, shift = (np.array(treatment.settings[k], np.float64) for k in ("scale", "shift"))
    assert np.allclose(np.asarray(TWICE.mean) * scale + shift, 0, atol=1e-6) and np.allclose(np.asarray(TWICE.std) * scale, 1)


def test_normalised_twice_by_the_transform_is_undone_as_it_says() -> None:
    case = with_steps(both(TWICE), (NORMALIZE, NORMALIZE))
    assert CHECK.treat is not None
    treatment = CHECK.treat(case, found(CHECK.detect(case)))
    assert isinstance(treatment, Intervention)
    assert np.allclose(np.array(treatment.settings["scale"], np.float64), np.array(STD))  # once is undone


@pytest.mark.parametrize("steps", [None, (NORMALIZE,)], ids=["unknown", "the same"])
def test_levels_that_no_transform_explains_are_brought_together(steps: tuple[Any, ...] | None) -> None:
    twice = inputs(np.array(MEAN) + np.array(MEAN) * np.array(STD), np.array(STD) ** 2)
    case = with_steps(with_phase(healthy(), "validation", inputs=twice), steps)
    assert CHECK.treat is not None
    treatment = CHECK.treat(case, found(CHECK.detect(case)))
    assert isinstance(treatment, Intervention) and treatment.settings["phase"] == "validation"
    assert np.allclose(np.array(treatment.settings["scale"], np.float64), STD, rtol=1e-4)
    train = case.run.last_train
    assert train is not None and train.inputs is not None
    moved = np.asarray(twice.mean) * treatment.settings["scale"] + treatment.settings["shift"]
    assert np.allclose(moved, train.inputs.mean, atol=1e-5)


def test_what_the_transforms_explain_is_treated_as_they_say() -> None:
    case = val_inputs(inputs((0.5,) * 3, (0.5,) * 3, pixel_mean=0.3), ((0.5,) * 3, (0.5,) * 3))
    assert CHECK.treat is not None
    treatment = CHECK.treat(case, found(CHECK.detect(case)))
    assert isinstance(treatment, Intervention)
    assert np.allclose(np.array(treatment.settings["shift"], np.float64), (0.5 - np.array(MEAN)) / np.array(STD))


@pytest.mark.parametrize("by", [1.0, -1.0, 0.6])
def test_a_range_that_lies_elsewhere(by: float) -> None:
    """As bytes that ran over: the levels are as far apart as ever, black and white lie elsewhere."""
    plain = inputs()
    span = plain.maximum - plain.minimum
    other = replace(plain, minimum=plain.minimum + by * span, maximum=plain.maximum + by * span)
    case = with_phase(healthy(datasets={}), "validation", inputs=other)
    finding = found(CHECK.detect(case))
    assert "range of val inputs" in [e.name for e in finding.evidence]
    act = CHECK.treat(case, finding)
    assert isinstance(act, Intervention)
    put = [np.array(act.settings[k]) for k in ("scale", "shift")]
    assert other.minimum * put[0] + put[1] == pytest.approx(plain.minimum, abs=1e-5)


@pytest.mark.parametrize(("low", "high"), [(0.4, 0.0), (0.0, -0.4), (0.4, -0.4), (-0.4, 0.4), (0.15, 0.15)])
def test_dark_pale_and_flat_pictures_move_one_end_or_both_ways(low: float, high: float) -> None:
    plain = inputs()
    span = plain.maximum - plain.minimum
    other = replace(plain, minimum=plain.minimum + low * span, maximum=plain.maximum + high * span)
    assert quiet(CHECK.detect(with_phase(healthy(datasets={}), "validation", inputs=other)))
