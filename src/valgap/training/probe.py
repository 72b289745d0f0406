"""A logistic probe on frozen features, its L2 chosen by cross-validation on the training images alone."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from valgap.recipe import Recipe

# The sweep looks at this many images at most; the chosen strength, which acts per image, is scaled to all of them.
SWEEP_IMAGES = 4_000
# Multiplications in one step of a regression (images x features x classes): below, one thread takes milliseconds.
FEW_PRODUCTS = 200_000_000


@dataclass(frozen=True)
class Probe:
    """A linear classifier on raw features: logits = features @ weight.T + bias."""

    weight: npt.NDArray[np.float32]  # (C, D)
    bias: npt.NDArray[np.float32]  # (C,)
    inverse_l2: float
    train_accuracy: float  # cross-validated on train, 0..1; nan when a class is too small to fold
    # Out-of-fold logits (M, C) of the training images ``swept`` (M,), from classifiers that did not see them.
    held_out: npt.NDArray[np.float32]
    swept: npt.NDArray[np.int64]

    def logits(self, features: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(N, C) of features (N, D)."""
        return np.asarray(features @ self.weight.T + self.bias)


def fit_probe(
    features: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], num_classes: int, recipe: Recipe, seed: int
) -> Probe:
    """The probe of features (N, D) and labels (N,); the standardisation is folded into weight and bias."""
    mean, std = features.mean(0), features.std(0) + 1e-6
    swept = _some(len(labels), seed)
    held_out, strength = _sweep((features[swept] - mean) / std, labels[swept], num_classes, recipe, seed)
    weight, bias = fit_head(features, labels, num_classes, strength * len(swept) / len(labels))
    right = held_out.argmax(1) == labels[swept]
    return Probe(
        weight=weight,
        bias=bias,
        inverse_l2=strength,
        train_accuracy=float(right.mean()) if np.isfinite(held_out).all() else float("nan"),
        held_out=held_out,
        swept=swept,
    )


def fit_head(
    features: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], num_classes: int, inverse_l2: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """(weight (C, D), bias (C,)) on raw features at one strength, without a sweep."""
    mean, std = features.mean(0), features.std(0) + 1e-6
    weight, bias = _linear((features - mean) / std, labels, num_classes, inverse_l2, 1000)
    raw = weight / std
    return raw.astype(np.float32), (bias - raw @ mean).astype(np.float32)


def _some(count: int, seed: int) -> npt.NDArray[np.int64]:
    if count <= SWEEP_IMAGES:
        return np.arange(count, dtype=np.int64)
    return np.sort(np.random.default_rng(seed).permutation(count)[:SWEEP_IMAGES]).astype(np.int64)


def _sweep(
    scaled: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], num_classes: int, recipe: Recipe, seed: int
) -> tuple[npt.NDArray[np.float32], float]:
    """(out-of-fold logits (N, C) at the best strength, that strength); of equally accurate ones the strongest penalty.

    The sweep goes from the strongest penalty on, and ends where weaker ones only do harm: two in a row of which each is no
    more accurate than the one before, at a higher loss. They are those that take longest.
    """
    folds = min(recipe.probe_folds, int(np.bincount(labels, minlength=num_classes).min()))
    if folds < 2:
        return np.full((len(labels), num_classes), np.nan, np.float32), recipe.probe_inverse_l2[len(recipe.probe_inverse_l2) // 2]
    parts = list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(scaled, labels))
    best: tuple[float, float, npt.NDArray[np.float32]] | None = None
    last, harm = (-1.0, np.inf), 0
    for strength in sorted(recipe.probe_inverse_l2):
        logits = np.empty((len(labels), num_classes), np.float32)
        for fit, out in parts:
            weight, bias = _linear(scaled[fit], labels[fit], num_classes, strength, 200)
            logits[out] = scaled[out] @ weight.T + bias
        accuracy, loss = float((logits.argmax(1) == labels).mean()), nll(logits, labels)
        if best is None or accuracy > best[0]:
            best = accuracy, strength, logits
        harm = harm + 1 if accuracy <= last[0] and loss > last[1] else 0
        last = accuracy, loss
        if harm == 2:
            break
    assert best is not None
    return best[2], best[1]


def _linear(
    scaled: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], num_classes: int, strength: float, steps: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(weight (C, D), bias (C,)) of a logistic regression; a class without images gets no weight and a low bias."""
    # Threads that wait for each other's part of so small a product spin: on a busy machine they took 15 times as long.
    threads = 1 if scaled.size * num_classes < FEW_PRODUCTS else None
    with warnings.catch_warnings(), threadpool_limits(threads):
        # Weak penalties on separable data do not converge in time; the sweep then simply does not choose them.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=strength, max_iter=steps).fit(scaled, labels)
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:  # two classes: one row; logits [0, z]
        weight = np.concatenate([np.zeros_like(weight), weight])
        bias = np.concatenate([np.zeros_like(bias), bias])
    if len(weight) == num_classes:
        return weight, bias
    full_weight, full_bias = np.zeros((num_classes, scaled.shape[1])), np.full(num_classes, -1e3)
    full_weight[model.classes_], full_bias[model.classes_] = weight, bias
    return full_weight, full_bias


def nll(logits: npt.NDArray[Any], labels: npt.NDArray[np.int64]) -> float:
    """Mean negative log-likelihood of labels (N,) under logits (N, C), nats."""
    return float(-log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels].mean())
