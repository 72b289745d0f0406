"""How sure a finding is told to be."""

import pytest

from valgap.confidence import LEAST, MOST, SUSPECTED, calibrated


def test_hints_stay_hints_and_what_is_told_keeps_its_order() -> None:
    line = (-0.5, 0.8)
    assert calibrated(0.45, line) == 0.45
    claims = [SUSPECTED, 0.6, 0.7, 0.9, 0.99, 1.0]
    told = [calibrated(c, line) for c in claims]
    assert told == sorted(told) and all(LEAST <= t <= MOST for t in told)
    assert calibrated(0.9, line) < 0.9


@pytest.mark.parametrize("claimed", [0.3, 0.5, 0.75, 0.97])
def test_no_line_changes_nothing(claimed: float) -> None:
    assert calibrated(claimed, (0.0, 1.0)) == claimed
