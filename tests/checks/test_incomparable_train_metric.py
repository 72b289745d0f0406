"""EVA504."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import TRAIN, VAL, healthy, quiet, rescored, samples, with_phase
from tests.checks.cases import TRAIN as N
from valgap.checks.evaluation.incomparable_train_metric import CHECK
from valgap.types import Case, Clear, Finding, NotApplicable

IDS = np.arange(TRAIN)


def case_of(reported: float, again: float, val: float) -> Case:
    case = with_phase(healthy(), "train", samples=samples(IDS, reported))
    case = with_phase(case, "validation", samples=samples(np.arange(N, N + VAL), val))
    return rescored(case, train_eval=samples(IDS, again))


@pytest.mark.parametrize("again", [0.9, 1.0])
def test_a_hidden_gap_is_explained_but_no_fault(again: float) -> None:
    outcome = CHECK.detect(case_of(0.6, again, 0.62))
    assert isinstance(outcome, Finding)
    assert outcome.evidence[0].value == pytest.approx(again)
    assert outcome.evidence[0].reference == pytest.approx(0.6)
    assert outcome.severity_points == 0
    assert quiet(outcome)


def test_an_ordinary_gap_and_no_gap_are_clear() -> None:
    assert isinstance(CHECK.detect(case_of(0.9, 0.97, 0.6)), Clear)
    assert isinstance(CHECK.detect(case_of(0.6, 0.62, 0.6)), Clear)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(Case(replace(healthy().run, closing=None))), NotApplicable)
