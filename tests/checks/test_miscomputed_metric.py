"""EVA503."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import TRAIN, found, healthy, samples, with_phase, without
from valgap.checks.miscomputed_metric import CHECK
from valgap.record.printed import numbers_in
from valgap.types import Case, Clear, NotApplicable

# 90 images in batches of 20: the last batch has 10, all wrong, so that batch means and sample means differ.
TABLE = samples(np.arange(TRAIN, TRAIN + 90), 1.0)
TABLE.prediction[-10:] = (TABLE.target[-10:] + 1) % 4
TRUTH = 80 / 90


def printed(line: str) -> Case:
    case = with_phase(healthy(), "validation", samples=TABLE)
    numbers = [n for p in case.run.of_phase("validation") for n in numbers_in(line, p.index)]
    return Case(replace(case.run, printed=tuple(numbers)))


@pytest.mark.parametrize(
    ("value", "word"),
    [(4 / 5, "batch means"), (80 / 100, "batch"), (80 / TRAIN, "training set"), (0.0, "integer")],
)
def test_wrong_formulas(value: float, word: str) -> None:
    finding = found(CHECK.detect(printed(f"epoch 1 val acc: {value:.4f}")))
    assert word in finding.summary
    assert finding.severity_points == pytest.approx(100 * (TRUTH - value), abs=0.01)


@pytest.mark.parametrize("line", ["val acc: 80.00%", "Accuracy: 80.0 %"])
def test_percent(line: str) -> None:
    assert found(CHECK.detect(printed(line)))


@pytest.mark.parametrize("line", [f"val acc {TRUTH:.4f}", f"val accuracy: {100 * TRUTH:.1f}%", "train acc 0.8000 val acc 0.8889"])
def test_right_numbers_are_silent(line: str) -> None:
    assert isinstance(CHECK.detect(printed(line)), Clear)


def test_other_metrics_are_left_alone() -> None:
    assert isinstance(CHECK.detect(printed("val acc 0.7431")), Clear)
    assert isinstance(CHECK.detect(printed("top-5 accuracy 0.8000")), NotApplicable)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(healthy()), NotApplicable)
    assert isinstance(CHECK.detect(without(healthy(), "validation")), NotApplicable)
