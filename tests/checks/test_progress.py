"""Measured quantities that the checks of training share."""

import numpy as np
import pytest

from tests.checks.cases import healthy, measured, rescored, samples
from valgap.checks.shared.progress import Drop, shortfall


def test_a_head_falls_short_of_a_probe_beyond_what_pairing_leaves_of_chance() -> None:
    case = rescored(measured(healthy(), probe_final=0.9, probe_n=100.0), val_eval=samples(np.arange(200, 300), 0.8))
    left = shortfall(case.run)
    assert left is not None and (left.probe, left.reached, left.n) == (0.9, pytest.approx(0.8), 100)
    error = ((0.9 * 0.1 + 0.8 * 0.2) / 100 / 2) ** 0.5
    assert left.low == pytest.approx(0.1 - 1.96 * error)
    assert shortfall(healthy().run) is None


def test_a_drop_is_told_in_points_against_none() -> None:
    fact = Drop(0.05, 0.01, 0.09, 0.02, 400).evidence()
    assert (fact.value, fact.reference, fact.unit, fact.n) == (pytest.approx(5.0), 0.0, "points", 400)
    assert (fact.low, fact.high) == pytest.approx((1.0, 9.0))
