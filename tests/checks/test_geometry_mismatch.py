"""PRE205."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import TRAIN, VAL, found, healthy, inputs, model, quiet, rescored, samples, with_phase, without
from valgap.checks.preprocessing.geometry_mismatch import CHECK
from valgap.types import Case, Finding, InputStats, Intervention, NotApplicable

IDS = np.arange(TRAIN, TRAIN + VAL)


def sized(side: int) -> InputStats:
    return replace(inputs(), shape=(3, side, side), shapes=((3, side, side),))


@pytest.mark.parametrize("side", [64, 96, 448])
def test_val_of_another_size(side: int) -> None:
    finding = found(CHECK.detect(with_phase(healthy(), "validation", inputs=sized(side))))
    assert finding.evidence[0].value == side
    assert finding.evidence[0].reference == 224


def test_images_far_too_small_for_the_weights() -> None:
    case = with_phase(with_phase(healthy(), "train", inputs=sized(32)), "validation", inputs=sized(32))
    hint = CHECK.detect(case)
    assert isinstance(hint, Finding) and hint.confidence < 0.5  # often meant, and its cost is not measured
    fresh = Case(replace(case.run, models={0: model(pretrained=False)}))
    assert not isinstance(CHECK.detect(fresh), Finding)  # new weights have no size of their own


@pytest.mark.parametrize("side", [192, 224, 256, 288])
def test_sound_sizes_are_silent(side: int) -> None:
    assert quiet(CHECK.detect(with_phase(healthy(), "validation", inputs=sized(side))))


@pytest.mark.parametrize("after", [0.7, 0.9])
def test_gain_of_the_weights_own_preparation(after: float) -> None:
    case = rescored(healthy(), val_eval=samples(IDS, 0.5), val_weights=samples(IDS, after))
    case = Case(replace(case.run, models={0: replace(model(), expected_crop=0.875, expected_interpolation="bicubic")}))
    finding = found(CHECK.detect(case))
    assert finding.severity_points == pytest.approx(100 * (after - 0.5), abs=1.0)
    assert CHECK.treat is not None
    treatment = CHECK.treat(case, finding)
    assert isinstance(treatment, Intervention)
    assert treatment.name == "weights_transform" and treatment.settings["interpolation"] == "bicubic"


def test_a_gain_that_another_cause_explains_is_silent() -> None:
    explained = {"val_eval": samples(IDS, 0.5), "val_weights_norm": samples(IDS, 0.9)}
    assert quiet(CHECK.detect(rescored(healthy(), val_weights=samples(IDS, 0.9), **explained)))
    assert quiet(CHECK.detect(rescored(healthy(), val_eval=samples(IDS, 0.9), val_weights=samples(IDS, 0.91))))
    assert quiet(CHECK.detect(rescored(healthy(), val_eval=samples(IDS, 0.9), val_weights=samples(IDS, 0.5))))
    small = with_phase(with_phase(healthy(), "train", inputs=sized(96)), "validation", inputs=sized(96))
    assert quiet(CHECK.detect(rescored(small, val_eval=samples(IDS, 0.5), val_weights=samples(IDS, 0.9))))


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "validation")), NotApplicable)
