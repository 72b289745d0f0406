"""Two tables of the same samples, laid beside each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.checks.cases import samples
from valgap.types import same_samples


def test_samples_of_both_tables_are_found_in_each() -> None:
    first, second = samples(range(6)), samples(range(4))
    first = replace(first, sample=np.array([7, 3, -1, 5, 3, 0], np.int32))
    second = replace(second, sample=np.array([5, -1, 3, 9], np.int32))
    here, there = same_samples(first, second)
    assert here.tolist() == [4, 3]  # 3 comes twice: its last place counts
    assert there.tolist() == [2, 0]
    assert [len(places) for places in same_samples(first, replace(second, sample=np.full(4, -1, np.int32)))] == [0, 0]
