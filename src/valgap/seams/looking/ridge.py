"""A ridge classifier on standardised features, its penalty the one with the least squared error of images left out by themselves.

The answers are those of scikit-learn's StandardScaler and RidgeClassifierCV, whose import takes longer than the fit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
PENALTIES = np.logspace(0, 5, 11)


def ridge_answers(train: Any, target: Any, asked: Any) -> Any:
    """(M,) classes that a ridge classifier gives to ``asked`` (M, D), fitted on features (N, D) of classes (N,)."""
    mean, spread = train.mean(0, dtype=np.float64), train.std(0, dtype=np.float64)
    spread[spread <= len(train) * np.finfo(np.float64).eps * np.abs(mean)] = 1.0  # alike but for rounding
    x, z = ((np.asarray(v) - mean) / spread for v in (train, asked))
    classes, own = np.unique(target, return_inverse=True)
    y = 2 * np.eye(len(classes))[own] - 1  # two classes have opposite columns: the larger one wins all the same
    weight, offset = _least_left_out(x, y)
    return classes[(z @ weight + offset).argmax(1)]


def _least_left_out(x: Array, y: Array) -> tuple[Array, Array]:
    """Weights (D, C) and offsets (C,) under the best penalty; all of them share one decomposition.

    An image's error, were it left out, is its residual over one less its leverage (Golub, Heath and Wahba 1979).
    """
    middle, level = x.mean(0), y.mean(0)
    x, y = x - middle, y - level
    n, d = x.shape
    if n <= d:
        values, left = np.linalg.eigh(x @ x.T)
    else:
        values, right = np.linalg.eigh(x.T @ x)
        left = x @ right / np.sqrt(np.maximum(values, 1e-30))
    values = np.maximum(values, 0.0)
    inside = left.T @ y
    best, chosen = np.inf, PENALTIES[0]
    for penalty in PENALTIES:
        share = values / (values + penalty)
        residual = y - left @ (share[:, None] * inside)
        leverage = 1 / n + (left**2) @ share
        error = float(((residual / (1 - leverage)[:, None]) ** 2).mean())
        if error < best:
            best, chosen = error, penalty
    if n <= d:
        weight = x.T @ (left @ (inside / (values + chosen)[:, None]))
    else:
        weight = right @ ((right.T @ (x.T @ y)) / (values + chosen)[:, None])
    return weight, level - middle @ weight
