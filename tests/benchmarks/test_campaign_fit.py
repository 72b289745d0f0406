"""Confidences are fitted to what came true."""

import sys
from pathlib import Path

import pytest

from valgap.confidence import calibrated

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from campaign_fit import fitted


@pytest.mark.parametrize(("truth", "claim"), [(0.6, 0.9), (0.95, 0.7)])
def test_the_fit_moves_claims_towards_what_came_true(truth: float, claim: float) -> None:
    pairs = [(claim, i < 200 * truth) for i in range(200)]
    assert calibrated(claim, fitted(pairs)) == pytest.approx(truth, abs=0.05)
