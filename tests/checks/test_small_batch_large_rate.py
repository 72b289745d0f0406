"""TRN410."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import found, healthy, replayed, without
from valgap.checks.training.small_batch_large_rate import CHECK
from valgap.types import Case, Clear, Intervention, NotApplicable


def tiny(size: int, gain: float, p: float = 0.001) -> Case:
    """Batches of ``size`` images, and what a tenth of the rate gains."""
    case = replayed(healthy(), 0.5, rate_tenth=(0.5 + gain, p))
    passes = tuple(replace(p, batch_sizes=np.full(len(p.batch_sizes), size)) for p in case.run.passes)
    return Case(replace(case.run, passes=passes))


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_high_rate_on_tiny_batches(size: int) -> None:
    finding = found(CHECK.detect(tiny(size, 0.3)))
    assert finding.severity_points == pytest.approx(30)
    assert CHECK.treat is not None
    assert CHECK.treat(tiny(size, 0.3), finding) == Intervention("scale_rate", {"factor": size / 32, "phase": "train"})


def test_a_fitting_rate_and_usual_batches_are_silent() -> None:
    assert isinstance(CHECK.detect(tiny(2, 0.02, 0.5)), Clear)
    assert isinstance(CHECK.detect(tiny(32, 0.3)), Clear)  # TRN401


def test_gathered_gradients_count_as_one_batch() -> None:
    case = tiny(2, 0.3)
    passes = tuple(replace(p, backwards=160, optimizer_steps=10) if p.phase == "train" else p for p in case.run.passes)
    assert isinstance(CHECK.detect(Case(replace(case.run, passes=passes))), Clear)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "train")), NotApplicable)
