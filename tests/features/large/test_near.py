"""Neighbours by the index against exact ones."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from valgap.features.large.near import by_index, has_index
from valgap.features.pairs import nearest_exact, unit_rows


def rows(n: int) -> np.ndarray:
    """Clusters of rows of length 1, as features of alike pictures lie."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(n // 20, 64))
    return unit_rows((centres[rng.integers(0, len(centres), n)] + 0.4 * rng.normal(size=(n, 64))).astype(np.float32))


def test_the_index_finds_the_exact_neighbours() -> None:
    pytest.importorskip("usearch")
    small = rows(4000)
    told: list[tuple[int, int]] = []
    exact, found = nearest_exact(small, 6), by_index(small, 6, lambda done, total: told.append((done, total)))
    hits = [len(set(a) & set(b)) for a, b in zip(exact.tolist(), found.tolist(), strict=True)]
    assert sum(hits) / (6 * len(hits)) >= 0.995
    assert not (found == np.arange(4000)[:, None]).any()
    assert told[-1] == (8000, 8000)


def test_equal_rows_are_each_others_neighbours() -> None:
    pytest.importorskip("usearch")
    small = np.concatenate([rows(500), rows(500)])
    found = by_index(small, 3, lambda done, total: None)
    twin = np.concatenate([np.arange(500, 1000), np.arange(500)])
    assert (found == twin[:, None]).any(1).mean() > 0.99


def test_exact_search_takes_blocks_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    small = rows(300)
    whole = nearest_exact(small, 4)
    monkeypatch.setattr("valgap.features.pairs.BLOCK_CELLS", 7 * 300)
    told: list[int] = []
    blocks = nearest_exact(small, 4, lambda done, total: told.append(done))
    assert told[0] == 7 and told[-1] == 300
    assert [sorted(r) for r in blocks.tolist()] == [sorted(r) for r in whole.tolist()]


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    assert not has_index()
