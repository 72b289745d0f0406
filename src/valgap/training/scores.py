"""What a classifier is worth on labelled images: accuracy with its interval, recalls, loss, calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from valgap.stats import wilson_interval

CALIBRATION_BINS = 15
MAX_LOG_TEMPERATURE = 3.0
# How many temperatures are tried on the way from 1 to the one of the lowest loss.
TEMPERATURES = 41


@dataclass(frozen=True)
class Scores:
    """Sample-weighted scores of N images; fractions 0..1, loss in nats. nan where a class has no image."""

    n: int
    accuracy: float
    low: float  # 95 % interval of the accuracy, Wilson
    high: float
    balanced_accuracy: float  # mean recall over the classes that have images
    recall: tuple[float, ...]  # per class
    nll: float
    calibration_error: float  # expected calibration error, 15 equal bins


def score(logits: npt.NDArray[Any], labels: npt.NDArray[np.int64], num_classes: int) -> Scores:
    """The scores of logits (N, C) for labels (N,)."""
    right = logits.argmax(1) == labels
    recall = [float(right[labels == c].mean()) if (labels == c).any() else float("nan") for c in range(num_classes)]
    low, high = wilson_interval(int(right.sum()), len(labels))
    return Scores(
        n=len(labels),
        accuracy=float(right.mean()),
        low=low,
        high=high,
        balanced_accuracy=float(np.nanmean(recall)),
        recall=tuple(recall),
        nll=nll(logits, labels),
        calibration_error=calibration_error(softmax(logits.astype(np.float64), axis=1), labels),
    )


def calibration_error(probabilities: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> float:
    """Expected calibration error of probabilities (N, C): the mean gap between confidence and accuracy, 0..1.

    Source: Naeini et al. 2015; Guo et al. 2017, section 2.
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = [abs(right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    return float(sum(gaps))


def losses(logits: npt.NDArray[Any], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(N,) negative log-likelihood of labels (N,) under logits (N, C), nats."""
    found: npt.NDArray[np.float64] = -log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels]
    return found


def errors_gained(falls: npt.NDArray[np.float64]) -> float:
    """The mean of falls of loss (M,), in its standard errors; 0 where nothing changed."""
    error = float(falls.std()) / float(np.sqrt(len(falls)))
    return float(falls.mean()) / error if error > 0 else 0.0


def cautious_temperature(logits: npt.NDArray[Any], labels: npt.NDArray[np.int64]) -> float:
    """The temperature of the lowest loss; but where that makes answers surer, the one next to 1 that is about as good.

    Images that are a little unlike these punish answers that are too sure, and hardly those that are not sure enough. As
    good is what costs less than a standard error: Breiman et al. 1984, section 3.4.3, here on paired differences.
    """
    best = fit_temperature(logits, labels)
    if best >= 1:
        return best
    lowest = losses(logits / best, labels)
    for temperature in np.geomspace(1.0, best, TEMPERATURES):
        excess = losses(logits / temperature, labels) - lowest
        if excess.mean() <= excess.std() / np.sqrt(len(labels)):
            return float(temperature)
    return best


def fit_temperature(logits: npt.NDArray[Any], labels: npt.NDArray[np.int64]) -> float:
    """The number that logits (N, C) are divided by for the lowest loss on labels (N,), of which one more is taken to be wrong.

    Else few images that are all right would ask for no doubt at all. Sources: Guo et al. 2017, section 4.2; Platt 1999,
    "Probabilistic Outputs for Support Vector Machines", section 2.2, for the targets.
    """
    count, classes = logits.shape
    wrong = 1 / (count + 2) if classes > 1 else 0.0
    target = np.full((count, classes), wrong / max(1, classes - 1))
    target[np.arange(count), labels] = 1 - wrong
    wide = logits.astype(np.float64)

    def loss(log_t: float) -> float:
        return float(-(target * log_softmax(wide / np.exp(log_t), axis=1)).sum(1).mean())

    found = minimize_scalar(loss, bounds=(-MAX_LOG_TEMPERATURE, MAX_LOG_TEMPERATURE), method="bounded")
    return float(np.exp(found.x))


def nll(logits: npt.NDArray[Any], labels: npt.NDArray[np.int64]) -> float:
    """Mean negative log-likelihood of labels (N,) under logits (N, C), nats."""
    return float(losses(logits, labels).mean())
