"""EVA508."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import TRAIN, found, healthy, quiet, samples, with_phase, without
from valgap.checks.evaluation.evaluated_other_data import CHECK
from valgap.diagnosis import order
from valgap.types import Case, Clear, Finding, Judged, NotApplicable


def trained_share(share: float) -> Case:
    """Validation over 100 samples, of which a share are training samples."""
    first = TRAIN - round(100 * share)
    return with_phase(healthy(), "validation", samples=samples(np.arange(first, first + 100), 0.9))


@pytest.mark.parametrize("share", [0.95, 1.0])
def test_validation_over_training_data(share: float) -> None:
    assert found(CHECK.detect(trained_share(share))).evidence[0].value == pytest.approx(share)


def test_sound_and_some_leakage_are_silent() -> None:
    assert isinstance(CHECK.detect(healthy()), Clear)
    assert quiet(CHECK.detect(trained_share(0.3)))


@pytest.mark.parametrize("confidence", [0.7, 0.99])
def test_it_stands_before_all_that_have_points(confidence: float) -> None:
    other = replace(CHECK, code="PRE205", voids_accuracy=False)
    costly = Judged(other, Finding("costs much", 30.0, confidence, (), ""))
    ours = Judged(CHECK, found(CHECK.detect(trained_share(1.0))))
    assert order([costly, ours]) == [ours, costly]
    hint = Judged(CHECK, replace(found(CHECK.detect(trained_share(1.0))), confidence=0.4))
    assert order([hint, costly]) == [costly, hint]


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "validation")), NotApplicable)
    unknown = samples(np.full(100, -1), 0.5)
    assert isinstance(CHECK.detect(with_phase(healthy(), "validation", samples=unknown)), NotApplicable)
