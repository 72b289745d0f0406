"""How sure a measured difference makes one that a stage is at fault."""

from __future__ import annotations

import pytest

from valgap.reference.probing import likely_above
from valgap.types import Measured


def measured(value: float, half: float) -> Measured:
    return Measured(value, value - half, value + half)


@pytest.mark.parametrize("value", [20.0, 40.0])
def test_a_clear_difference_is_sure(value: float) -> None:
    assert likely_above(measured(value, 8.0), 6.0) > 0.95


def test_what_may_as_well_be_nothing_is_no_bet() -> None:
    assert likely_above(measured(9.4, 17.0), 6.0) == 0.5  # 3 of 32 images
    assert likely_above(measured(9.4, 8.0), 6.0) > 0.7  # the same of many more
    assert likely_above(measured(1.0, 17.0), 6.0) < 0.5
