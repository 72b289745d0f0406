"""PRE202."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import found, healthy, inputs, quiet, with_phase, without
from valgap.checks.value_range_mismatch import CHECK, span
from valgap.types import InputStats, NotApplicable


def scaled(factor: float) -> InputStats:
    plain = inputs((0.0,) * 3, (1.0,) * 3)
    return replace(plain, minimum=plain.minimum * factor, maximum=plain.maximum * factor)


@pytest.mark.parametrize("factor", [255.0, 1 / 255, 1 / 255**2])
def test_phases_on_different_scales(factor: float) -> None:
    finding = found(CHECK.detect(with_phase(healthy(), "validation", inputs=scaled(factor))))
    assert f"{factor:.3g}" in finding.summary
    assert span(scaled(factor)) == pytest.approx(factor)


@pytest.mark.parametrize("factor", [255.0, 1 / 255])
def test_both_phases_wrong_for_given_weights(factor: float) -> None:
    case = with_phase(with_phase(healthy(), "validation", inputs=scaled(factor)), "train", inputs=scaled(factor))
    assert found(CHECK.detect(case))


def test_sound_and_unnormalised_val_are_silent() -> None:
    assert quiet(CHECK.detect(healthy()))
    assert quiet(CHECK.detect(with_phase(healthy(), "validation", inputs=scaled(1.0))))  # PRE201's


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(with_phase(healthy(), "train", inputs=None)), NotApplicable)
    assert isinstance(CHECK.detect(without(healthy(), "validation")), NotApplicable)
    flat = replace(inputs(), minimum=np.zeros(3), maximum=np.zeros(3))
    assert isinstance(CHECK.detect(with_phase(healthy(), "validation", inputs=flat)), NotApplicable)


def test_maps_of_another_network_are_no_images() -> None:
    maps = replace(inputs((0.0,) * 3, (30.0,) * 3), shape=(112, 6, 6))
    one = with_phase(with_phase(healthy(), "train", inputs=maps), "validation", inputs=maps)
    assert isinstance(CHECK.detect(one), NotApplicable)
