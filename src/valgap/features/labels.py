"""How probable it is that each label is wrong, and how many are, from held-out kernel probes.

The probe is ridge regression with a Gaussian kernel on features of length 1 (through Nystroem landmarks, so that the cost
grows linearly): on real human noise it ranks wrong labels as well as or better than logistic probes, whose likelihood
follows the noise. benchmarks/labels.py compares. The ranking is by the held-out probability of the given label.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from valgap.features.probes import cross_validated, fit, one_hot, softmax, standardised, temperature
from valgap.types import FloatArray, HeldOut, ImageRows, IntArray, LabelErrors

Array = npt.NDArray[np.float64]
LANDMARKS = 1_200
# Kernel width: exp(-WIDTH * squared distance / its median).
WIDTH = 1.0
# Ridge penalties on the kernel, whose diagonal is 1.
PENALTIES = (0.3, 1.0, 3.0)
# Estimated noise rate = sure * (1 + LIFT * min(1, gap / HARD)) - CUT * gap, where ``sure`` is the disagreement among the more
# confident half, and ``gap`` how far the share of labels off the confident joint's diagonal lies above it: that share counts
# images that are merely hard as well, while the confident half sees too little of noise that falls on hard images. Fitted on
# CIFAR-10N (clean, aggre, random1, worse: off by at most 2.5 points) and on planted noise of 0 .. 20 % on clothing_mini,
# hymenoptera_256 and sign_digits_mini (off by at most 4.5 points).
LIFT, HARD, CUT = 0.22, 0.05, 0.67


def label_errors(embeddings: FloatArray, rows: ImageRows, held: HeldOut) -> LabelErrors:
    """Probabilities, likely classes and noise rates; the folds are those of ``held``."""
    train = np.flatnonzero(held.folds >= 0)
    labels, classes = rows.labels[train], len(rows.classes)
    features = kernel_features(standardised(embeddings, train)[:, :-1], train)
    scores, penalty = cross_validated(features[train], labels, classes, held.folds[train], [p / len(train) for p in PENALTIES])
    sharpness = temperature(scores, labels)
    probabilities = np.full((len(rows.names), classes), np.nan)
    probabilities[train] = softmax(sharpness * scores)
    val = np.flatnonzero(rows.is_val & (rows.labels >= 0) & np.isfinite(held.probabilities[:, 0]))
    val_rate = float("nan")
    if len(val):
        weight = fit(features[train], one_hot(labels, classes), penalty)
        probabilities[val] = softmax(sharpness * (features[val] @ weight))
        val_rate = noise_rate(probabilities[val], rows.labels[val])
    train_rate = noise_rate(probabilities[train], labels)
    wrong = np.full(len(rows.names), np.nan)
    likely = np.full(len(rows.names), -1, np.int64)
    for places, rate in ((train, train_rate), (val, val_rate)):
        if len(places):
            given = probabilities[places, rows.labels[places]]
            wrong[places] = calibrated(1 - given, rate)
            likely[places] = probabilities[places].argmax(1)
    return LabelErrors(wrong, likely, train_rate, val_rate)


def kernel_features(features: Array, train: IntArray, seed: int = 0) -> Array:
    """(N, m + 1) features whose products are Gaussian kernels of features (N, D), and a constant column.

    Rows that are not finite stay so.
    """
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)
    marks = unit[np.sort(np.random.default_rng(seed).permutation(train)[:LANDMARKS])]
    among = np.maximum(2 - 2 * marks @ marks.T, 0)
    width = WIDTH / max(1e-9, float(np.median(among)))
    values, vectors = np.linalg.eigh(np.exp(-width * among))
    keep = values > 1e-6 * values[-1]
    root = vectors[:, keep] / np.sqrt(values[keep])
    found = np.exp(-width * np.maximum(2 - 2 * unit @ marks.T, 0)) @ root
    return np.concatenate([found, np.ones((len(found), 1))], axis=1)


def noise_rate(probabilities: Array, labels: IntArray) -> float:
    """Estimated share of wrong labels (n,) under held-out probabilities (n, C), 0..1."""
    confidence = probabilities.max(1)
    sure = confidence >= np.median(confidence)
    among_sure = float((probabilities.argmax(1) != labels)[sure].mean())
    gap = max(0.0, off_diagonal(probabilities, labels) - among_sure)
    return float(np.clip(among_sure * (1 + LIFT * min(1.0, gap / HARD)) - CUT * gap, 0, 1))


def off_diagonal(probabilities: Array, labels: IntArray) -> float:
    """Share of labels off the diagonal of the confident joint of given and predicted class. Source: Northcutt 2021, section 3."""
    n, classes = probabilities.shape
    own = probabilities[np.arange(n), labels]
    counts = np.bincount(labels, minlength=classes)
    threshold = np.bincount(labels, weights=own, minlength=classes) / np.maximum(counts, 1)
    above = np.where((probabilities >= threshold) & (counts > 0), probabilities - threshold, -np.inf)
    counted = np.isfinite(above.max(1))
    joint = np.zeros((classes, classes))
    np.add.at(joint, (above.argmax(1)[counted], labels[counted]), 1.0)
    joint *= counts / np.maximum(joint.sum(0), 1)
    return float(1 - np.trace(joint) / max(1e-9, joint.sum()))


def calibrated(suspicion: Array, rate: float) -> Array:
    """The same order as probabilities whose mean is ``rate``: one shift of all log-odds."""
    odds = logit(np.clip(suspicion, 1e-9, 1 - 1e-9))
    low, high = -60.0, 60.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if expit(odds + middle).mean() < rate else (low, middle)
    return np.asarray(expit(odds + (low + high) / 2))
