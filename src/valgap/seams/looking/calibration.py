"""How far a classifier's probabilities are from its accuracy: temperature, calibration error. Arrays only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax

Array = npt.NDArray[np.float64]
MIN_IMAGES = 20
BINS = 15
FOLDS = 5
RANGE = (0.05, 50.0)  # of temperatures


def calibration(logits: Array, target: npt.NDArray[np.integer]) -> dict[str, float] | None:
    """Numbers on logits (N, C) and class indices (N,) (-1 unknown): see ``types.Closing``. None with fewer than 20 images.

    The tempered values are cross-fitted: the temperature of each fifth comes from the other four. Source: Guo et al. 2017.
    """
    known = (target >= 0) & (target < logits.shape[1]) & np.isfinite(logits).all(1)
    x, y = logits[known], target[known]
    if len(y) < MIN_IMAGES:
        return None
    plain = nll(x, y, 1.0)
    tempered, scaled = np.zeros(len(y)), np.zeros_like(x)
    folds = np.arange(len(y)) % FOLDS
    for fold in range(FOLDS):
        own = folds == fold
        fitted = temperature(x[~own], y[~own])
        tempered[own] = nll(x[own], y[own], fitted)
        scaled[own] = x[own] / fitted
    gain = plain - tempered
    return {
        "val_temperature": temperature(x, y),
        "val_nll": float(plain.mean()),
        "val_nll_tempered": float(tempered.mean()),
        "val_nll_gain_se": float(gain.std() / np.sqrt(len(gain))),
        "val_ece": calibration_error(x, y),
        "val_ece_tempered": calibration_error(scaled, y),
        "calibration_n": float(len(y)),
    }


def nll(logits: Array, target: npt.NDArray[np.integer], at: float) -> Array:
    """(N,) cross-entropy in nats of the logits divided by a temperature."""
    scores = log_softmax(logits / at, axis=1)
    return np.asarray(-scores[np.arange(len(target)), target], np.float64)


def temperature(logits: Array, target: npt.NDArray[np.integer]) -> float:
    """The temperature that minimises the mean cross-entropy: above 1 where the classifier is too sure."""
    from scipy.optimize import minimize_scalar  # takes a third of a second to import

    low, high = np.log(RANGE)
    found = minimize_scalar(lambda t: nll(logits, target, float(np.exp(t))).mean(), bounds=(low, high), method="bounded")
    return float(np.exp(found.x))


def calibration_error(logits: Array, target: npt.NDArray[np.integer]) -> float:
    """Expected calibration error, 0..1, over 15 bins of equal width."""
    scores = np.exp(log_softmax(logits, axis=1))
    sure, right = scores.max(1), scores.argmax(1) == target
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    return float(sum(abs(sure[place == b].mean() - right[place == b].mean()) * (place == b).mean() for b in np.unique(place)))
