"""How probable it is that each label is wrong, and how many are, from held-out probes on several views of each image.

A kernel and a discriminant probe for each view give calibrated probabilities; their average (of logarithms) says how probable
the given label is. Then the labels are softened to what the probes and a class transition matrix make of them, and the same
probes are fitted again on those: wrong labels no longer teach the probe of the others. benchmarks/labels.py compares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from valgap.features.label_probes import DiscriminantProbe, KernelProbe, Split, calibration, centred, splits_of
from valgap.features.noise import expected_counts, noise_rate
from valgap.features.probes import one_hot, softmax
from valgap.types import FloatArray, HeldOut, ImageRows, IntArray, LabelErrors

Array = npt.NDArray[np.float64]
# One image's features by depth, the last first: (N, D) each.
View = Sequence[FloatArray]
# Refits on softened labels: two gain .012 average precision where many labels are wrong (benchmarks/results/labels.md).
REFITS = 2
TRANSITION_STEPS = 30
# Probes do not know a class of which they saw fewer images: what they say of its labels is nothing.
MIN_OF_CLASS = 8
NAN = float("nan")
UNKNOWN = (NAN, NAN, NAN)


def label_errors(views: Sequence[View], rows: ImageRows, held: HeldOut) -> LabelErrors:
    """Probabilities, likely classes and noise rates; the folds are those of ``held``."""
    val = np.flatnonzero(rows.is_val & (rows.labels >= 0) & (held.answers >= 0))
    train = np.flatnonzero(held.folds >= 0)
    found = held_out_probabilities(views, rows.labels, len(rows.classes), held.folds, val)
    known = np.bincount(rows.labels[train], minlength=len(rows.classes)) >= MIN_OF_CLASS
    # What the other images may be does not include what no probe has learnt, however many of it there are.
    ours, theirs = (rows.labels[places][known[rows.labels[places]]] for places in (train, val))
    found[:, ~known] = 0.0
    found[val] = with_shares(found[val], ours, theirs)
    wrong = np.full(len(rows.names), np.nan)
    likely = np.full(len(rows.names), -1, np.int64)
    rates = [UNKNOWN, UNKNOWN]
    for side, places in enumerate((train, val)):
        places = places[known[rows.labels[places]]]
        if len(places):
            rates[side] = noise_rate(found[places], rows.labels[places])
            wrong[places] = calibrated(1 - found[places, rows.labels[places]], rates[side][0])
            likely[places] = found[places].argmax(1)
    (train_rate, *train_range), (val_rate, *val_range) = rates
    return LabelErrors(wrong, likely, train_rate, val_rate, (train_range[0], train_range[1]), (val_range[0], val_range[1]))


def with_shares(probabilities: Array, train: IntArray, val: IntArray) -> Array:
    """(n, C) as they would be had the classes been filled in training as they are among these images (Saerens 2002)."""
    classes = probabilities.shape[1]
    ours, theirs = (np.bincount(labels, minlength=classes) + 1.0 for labels in (train, val))
    turned = probabilities * (theirs / theirs.sum()) / (ours / ours.sum())
    return np.asarray(turned / np.maximum(turned.sum(1, keepdims=True), 1e-12))


def held_out_probabilities(
    views: Sequence[View], labels: IntArray, classes: int, fold: IntArray, val: IntArray, refits: int = REFITS
) -> Array:
    """(N, C) by probes that never saw the image's label; nan where it is neither in a fold (``fold`` >= 0) nor in val."""
    return fitted_probes(views, labels, classes, fold, splits_of(fold, val), refits)[0]


def fitted_probes(
    views: Sequence[View], labels: IntArray, classes: int, fold: IntArray, splits: Sequence[Split], refits: int = REFITS
) -> tuple[Array, LabelProbes]:
    """(held-out probabilities (N, C), the probes of the last split, which others can be shown to)."""
    train = np.flatnonzero(fold >= 0)
    usable = np.unique(np.concatenate([train, *(outside for _, outside in splits)]))
    # Earlier features than the last are fewer, and one direction a class tells another data set's classes apart better in them.
    probes: list[KernelProbe | DiscriminantProbe] = [
        p for v in views for p in (KernelProbe(v, splits), DiscriminantProbe(v[1:] or v, splits))
    ]
    targets = np.zeros((len(labels), classes))
    targets[usable] = one_hot(labels[usable], classes)
    found: Array = targets
    for step in range(1 + refits):
        if step:
            targets[train] = softened(found[train], labels[train])
        scores = [centred(p.scores(targets, labels)) for p in probes]
        factors = [calibration(s[train], labels[train]) for s in scores]
        logs = [np.log(softmax(f * s) + 1e-9) for f, s in zip(factors, scores, strict=True)]
        mean = centred(np.mean(logs, axis=0))
        last = calibration(mean[train], labels[train])
        found = softmax(last * mean)
    return found, LabelProbes(tuple(probes), tuple(factors), last)


@dataclass(frozen=True)
class LabelProbes:
    """Probes of every view with their calibration, fitted on softened labels."""

    probes: tuple[KernelProbe | DiscriminantProbe, ...]
    factors: tuple[float, ...]
    last: float  # of their average

    def of(self, views: Sequence[View]) -> Array:
        """(n, C) probabilities of other images."""
        shown = [blocks for v in views for blocks in (v, v[1:] or v)]
        scores = [centred(p.of(blocks)) for p, blocks in zip(self.probes, shown, strict=True)]
        logs = [np.log(softmax(f * s) + 1e-9) for f, s in zip(self.factors, scores, strict=True)]
        return softmax(self.last * centred(np.mean(logs, axis=0)))


def softened(probabilities: Array, labels: IntArray) -> Array:
    """(n, C) probability of each true class, for held-out probabilities (n, C) and given labels (n,).

    The class transition matrix P(given | true) is fitted to them by expectation maximisation (Dempster 1977; Patrini 2017).
    """
    classes = probabilities.shape[1]
    transition = np.full((classes, classes), 0.2 / max(1, classes - 1))
    np.fill_diagonal(transition, 0.8)
    posterior = probabilities
    for _ in range(TRANSITION_STEPS):
        counts, posterior = expected_counts(probabilities, transition, labels)
        counts += 2 * np.eye(classes) + 1 / classes
        transition = counts / counts.sum(1, keepdims=True)
    return posterior


def calibrated(suspicion: Array, rate: float) -> Array:
    """The same order as probabilities whose mean is ``rate``: one shift of all log-odds."""
    odds = logit(np.clip(suspicion, 1e-9, 1 - 1e-9))
    low, high = -60.0, 60.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if expit(odds + middle).mean() < rate else (low, middle)
    return np.asarray(expit(odds + (low + high) / 2))
