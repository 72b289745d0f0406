"""PRE202."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import MEAN, STD, found, healthy, inputs, model, quiet, with_phase, without
from valgap.checks.preprocessing.normalization_mismatch import CHECK as NORMALIZATION
from valgap.checks.preprocessing.value_range_mismatch import CHECK, span
from valgap.types import Case, Clear, InputStats, Intervention, NotApplicable, Untreatable


def scaled(factor: float) -> InputStats:
    plain = inputs((0.0,) * 3, (1.0,) * 3)
    return replace(plain, minimum=plain.minimum * factor, maximum=plain.maximum * factor)


@pytest.mark.parametrize("factor", [255.0, 1 / 255, 1 / 255**2])
def test_phases_on_different_scales(factor: float) -> None:
    finding = found(CHECK.detect(with_phase(healthy(), "validation", inputs=scaled(factor))))
    assert f"{factor:.3g}" in finding.summary
    assert span(scaled(factor)) == pytest.approx(factor)


def test_the_treatment_puts_validation_on_the_scale_of_training() -> None:
    wide = inputs((0.0,) * 3, (1 / 255,) * 3)  # 0 .. 255
    case = with_phase(healthy(), "validation", inputs=wide)
    assert CHECK.treat is not None
    treatment = CHECK.treat(case, found(CHECK.detect(case)))
    assert isinstance(treatment, Intervention) and treatment.settings["phase"] == "validation"
    assert treatment.settings["scale"] == pytest.approx([1 / (255 * s) for s in STD])
    assert treatment.settings["shift"] == pytest.approx([-m / s for m, s in zip(MEAN, STD, strict=True)])


@pytest.mark.parametrize(("factor", "unit"), [(255.0, 1 / 255), (1 / 255, 255.0)])
def test_the_treatment_puts_both_on_the_scale_that_the_weights_expect(factor: float, unit: float) -> None:
    case = with_phase(with_phase(healthy(), "validation", inputs=scaled(factor)), "train", inputs=scaled(factor))
    assert CHECK.treat is not None
    treatment = CHECK.treat(case, found(CHECK.detect(case)))
    assert isinstance(treatment, Intervention) and treatment.settings["phase"] == "both"
    assert treatment.settings["scale"] == pytest.approx([unit / s for s in STD])
    unknown = replace(case.run, models={0: model(expected_mean=None)})
    assert isinstance(CHECK.treat(Case(unknown), found(CHECK.detect(case))), Untreatable)


@pytest.mark.parametrize("factor", [255.0, 1 / 255])
def test_both_phases_wrong_for_given_weights(factor: float) -> None:
    case = with_phase(with_phase(healthy(), "validation", inputs=scaled(factor)), "train", inputs=scaled(factor))
    assert found(CHECK.detect(case))


@pytest.mark.parametrize("suited", [True, False])
def test_first_weights_that_were_rewritten_may_expect_values_of_their_own(suited: bool) -> None:
    case = with_phase(with_phase(healthy(), "validation", inputs=scaled(255.0)), "train", inputs=scaled(255.0))
    own = case.run.trained_model
    assert own is not None
    altered = np.zeros(len(own.is_parameter), np.int8)
    altered[np.flatnonzero(own.is_parameter)[0 if suited else 1]] = 1
    case = Case(replace(case.run, models={own.id: replace(own, altered=altered)}))
    assert isinstance(CHECK.detect(case), Clear) == suited
    assert not suited or isinstance(NORMALIZATION.detect(case), Clear)


def test_a_network_that_is_given_whole_numbers_prepares_them_itself() -> None:
    """Bytes of blue, green, red, turned into what the weights expect inside the module: so the two checks of values say."""
    whole = replace(scaled(255.0), dtype="uint8", quantum=np.ones(3))
    case = with_phase(with_phase(healthy(), "validation", inputs=whole), "train", inputs=whole)
    assert isinstance(CHECK.detect(case), Clear) and isinstance(NORMALIZATION.detect(case), Clear)
    one = with_phase(healthy(), "validation", inputs=whole)  # training is given normalised values
    assert found(CHECK.detect(one))


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
