"""PRE205."""

from dataclasses import replace

import pytest

from tests.checks.cases import found, healthy, inputs, model, quiet, with_phase, without
from valgap.checks.geometry_mismatch import CHECK
from valgap.types import Case, InputStats, NotApplicable


def sized(side: int) -> InputStats:
    return replace(inputs(), shape=(3, side, side), shapes=((3, side, side),))


@pytest.mark.parametrize("side", [64, 96, 448])
def test_val_of_another_size(side: int) -> None:
    finding = found(CHECK.detect(with_phase(healthy(), "validation", inputs=sized(side))))
    assert finding.evidence[0].value == side
    assert finding.evidence[0].reference == 224


def test_images_far_too_small_for_the_weights() -> None:
    case = with_phase(with_phase(healthy(), "train", inputs=sized(32)), "validation", inputs=sized(32))
    assert found(CHECK.detect(case))
    fresh = Case(replace(case.run, models={0: model(pretrained=False)}))
    assert quiet(CHECK.detect(fresh))  # new weights have no size of their own


@pytest.mark.parametrize("side", [192, 224, 256, 288])
def test_sound_sizes_are_silent(side: int) -> None:
    assert quiet(CHECK.detect(with_phase(healthy(), "validation", inputs=sized(side))))


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "validation")), NotApplicable)
