"""Class shares of train and val: an exact null, and power where one class or many change."""

from __future__ import annotations

import numpy as np
import pytest

from valgap.features.shift import class_shares, share_statistics


def p_value(train: np.ndarray, val: np.ndarray, classes: int = 10) -> float:
    return class_shares(train, val, classes, np.random.default_rng(0))[0]


def test_random_splits_alarm_as_often_as_stated() -> None:
    labels, rng = np.repeat(np.arange(10), 69), np.random.default_rng(0)
    splits = [rng.permutation(len(labels)) < 186 for _ in range(200)]
    p_values = np.array([p_value(labels[~v], labels[v]) for v in splits])
    assert 0.01 <= (p_values <= 0.05).mean() <= 0.1
    assert 0.4 <= (p_values <= 0.5).mean() <= 0.6


@pytest.mark.parametrize(
    "shares", [[1.0] * 9 + [0.0], [1.0] * 8 + [0.15] * 2, [0.75**c for c in range(10)]], ids=["absent", "two", "tail"]
)
def test_changed_shares_are_found(shares: list[float]) -> None:
    val = np.repeat(np.arange(10), [round(20 * s) for s in shares])
    assert p_value(np.repeat(np.arange(10), 50), val) <= 0.01


def test_equal_shares_and_a_single_class() -> None:
    assert p_value(np.repeat(np.arange(10), 50), np.repeat(np.arange(10), 20)) > 0.9
    assert p_value(np.zeros(50, np.int64), np.zeros(20, np.int64), 2) == 1.0


def test_statistics_of_a_table() -> None:
    table = np.array([[[30.0, 10.0], [10.0, 30.0]]])
    chi_square, residual = share_statistics(table)
    assert chi_square[0] == pytest.approx(20.0)
    assert residual[0] == pytest.approx(np.sqrt(20.0))  # of two classes, the adjusted residual is the root of chi-square
