"""EVA509."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import TRAIN, VAL, found, healthy, quiet, samples
from valgap.checks.evaluation.misordered_predictions import CHECK, independent
from valgap.record.printed import numbers_in
from valgap.types import Case, Clear, LoaderInfo, NotApplicable

IDS = np.arange(TRAIN, TRAIN + VAL)


def shuffled(value: float | None, accuracy: float = 0.9) -> tuple[Case, float]:
    """A shuffling validation loader and a printed accuracy (None: that against the data set's own order), with that accuracy."""
    case = healthy()
    table = samples(IDS, accuracy, seed=5, shuffle=True)
    last = case.run.last_validation
    assert last is not None
    wrong = float((table.prediction == IDS % 4).mean())
    line = f"val acc {wrong if value is None else value:.4f}"
    passes = tuple(replace(p, samples=table) if p is last else p for p in case.run.passes)
    loader = LoaderInfo(1, 1, 20, "RandomSampler", True, False, 0, 5)
    printed = tuple(numbers_in(line, last.index))
    return Case(replace(case.run, passes=passes, printed=printed, loaders={**case.run.loaders, 1: loader})), wrong


@pytest.mark.parametrize("accuracy", [0.6, 0.9, 1.0])
def test_labels_in_the_order_of_the_data_set(accuracy: float) -> None:
    case, wrong = shuffled(None, accuracy)
    finding = found(CHECK.detect(case))
    assert "own order" in finding.summary
    assert finding.severity_points == pytest.approx(100 * (accuracy - wrong), abs=0.01)
    assert (finding.evidence[0].value, finding.evidence[0].reference) == pytest.approx((wrong, accuracy))


def test_chance_level_with_a_shuffling_loader() -> None:
    finding = found(CHECK.detect(shuffled(0.25)[0]))
    assert "unrelated" in finding.summary
    assert (finding.evidence[0].value, finding.evidence[0].reference) == pytest.approx((0.25, 0.25), abs=0.01)


def test_chance_is_the_product_of_the_shares() -> None:
    last = healthy().run.last_validation
    assert last is not None
    target = np.array([0] * 6 + [1] * 3 + [-1], np.int32)  # one has no label
    table = replace(last.samples, target=target, prediction=np.array([0, 1] * 5, np.int32), sample=np.arange(10, dtype=np.int32))
    expected = 0.5 * 0.6 + 0.5 * 0.3
    assert independent(replace(last, samples=table)) == pytest.approx((expected, (expected * (1 - expected) / 10) ** 0.5))


def test_right_and_slightly_wrong_numbers_are_silent() -> None:
    assert isinstance(CHECK.detect(shuffled(0.9)[0]), Clear)
    assert isinstance(CHECK.detect(shuffled(0.87)[0]), Clear)
    assert isinstance(CHECK.detect(healthy()), Clear)


def test_repeated_samples_are_a_hint() -> None:
    case = healthy()
    table = samples(np.concatenate([IDS, IDS[:4]]))
    passes = tuple(replace(p, samples=table) if p.phase == "validation" else p for p in case.run.passes)
    outcome = CHECK.detect(Case(replace(case.run, passes=passes)))
    assert quiet(outcome)
    assert not isinstance(outcome, (Clear, NotApplicable))
