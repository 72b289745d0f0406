"""Held-out answers and learning curves of the ridge probe for any number of images, in three passes over their features.

A ridge probe needs of its images their products (D x D) and sums by class (D x C) alone. They are added up for tenths of the
training images; folds and growing shares are sums of tenths, so that every probe of ``features.probes`` follows without another
pass, and so do the squared errors by which the penalty is chosen. Nothing is sampled but the images that a curve is scored on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve

from valgap.features.large.sampled import stratified_sample
from valgap.features.large.table import DiskFeatures
from valgap.features.probes import (
    CURVE_REPEATS,
    FOLDS,
    MIN_IMAGES,
    PENALTIES,
    divisor,
    judged_answers,
    rescaled,
    together,
)
from valgap.types import FloatArray, HeldOut, ImageRows, IntArray, LearningCurve

Array = npt.NDArray[np.float64]
# A penalty per image, and its weights (D + 1, C) without each fold.
Chosen = tuple[float, list[FloatArray]]
TENTHS = 10
# Tenths of the training images on which the points of a curve are fitted.
CURVE_TENTHS = (1, 2, 5, 8, 10)
# A curve's accuracies are shares of so many images: their standard error is .35 points at most.
CURVE_IMAGES = 20_000


@dataclass(frozen=True)
class Sums:
    """What probes need of the training images, by tenths. D features and a constant."""

    mean: FloatArray  # (D,) float32, of the training images
    spread: FloatArray  # (D,)
    tenth: IntArray  # (N,) 0..9 of each training image, -1 of others
    products: Array  # (10, D + 1, D + 1)
    by_class: Array  # (10, D + 1, C)
    counts: Array  # (10,) images

    def design(self, features: FloatArray) -> FloatArray:
        """(n, D + 1) float32 of images' features (n, D)."""
        out = np.ones((len(features), features.shape[1] + 1), np.float32)
        out[:, :-1] = rescaled(features, self.mean, self.spread)
        return out

    def weight(self, tenths: Sequence[int], penalty: float) -> FloatArray:
        """(D + 1, C) ridge weights of the images of these tenths; ``penalty`` is per image."""
        part = list(tenths)
        return solved(self.products[part].sum(0), self.by_class[part].sum(0), penalty * self.counts[part].sum())


def sums_of(features: DiskFeatures, rows: ImageRows, train: IntArray, pictures: IntArray | None = None) -> Sums:
    """The sums over the training images, in two passes over their features.

    Args:
        pictures: (N,) equal for images that show one picture, which are then of one tenth; None: each shows its own.
    """
    width, classes = features.shape[1], len(rows.classes)
    total, squares = np.zeros(width), np.zeros(width)
    for _, block in features.blocks(train):
        exact = block.astype(np.float64)
        total += exact.sum(0)
        squares += (exact**2).sum(0)
    mean = total / len(train)
    std = np.sqrt(np.maximum(squares / len(train) - mean**2, 0))
    tenth = np.full(len(rows.names), -1, np.int64)
    own = pictures[train] if pictures is not None else np.arange(len(train))
    tenth[train] = together(own, rows.labels[train], TENTHS)
    products = np.zeros((TENTHS, width + 1, width + 1))
    by_class = np.zeros((TENTHS, width + 1, classes))
    found = Sums(
        mean.astype(np.float32), divisor(std).astype(np.float32), tenth, products, by_class,
        np.bincount(tenth[train], minlength=TENTHS).astype(np.float64),
    )  # fmt: skip
    for places, block in features.blocks(train):
        design = found.design(block)
        for number in range(TENTHS):
            inside = tenth[places] == number
            part, labels = design[inside], rows.labels[places[inside]]
            products[number] += part.T @ part
            order = np.argsort(labels, kind="stable")
            present, starts = np.unique(labels[order], return_index=True)
            if len(present):
                by_class[number][:, present] += np.add.reduceat(part[order].astype(np.float64), starts, axis=0).T
    return found


def solved(gram: Array, right: Array, strength: float) -> FloatArray:
    """(D + 1, C) float32 ridge weights of products and sums by class."""
    damped = gram.copy()
    damped[np.diag_indices(len(damped))] += strength
    return np.asarray(cho_solve(cho_factor(damped, check_finite=False), right, check_finite=False), np.float32)


def folds_without(number: int) -> list[int]:
    """The tenths of all folds but one; a fold is two tenths."""
    return [t for t in range(TENTHS) if t // 2 != number]


def chosen_penalty(sums: Sums) -> Chosen:
    """(the penalty per image with the lowest held-out squared error, its weights (D + 1, C) without each fold)."""
    width = sums.products.shape[1]
    whole, right = sums.products.sum(0), sums.by_class.sum(0)
    errors = {}
    for penalty in (p * width for p in PENALTIES):
        weights, error = [], 0.0
        for number in range(FOLDS):
            own = [2 * number, 2 * number + 1]
            gram, target = sums.products[own].sum(0), sums.by_class[own].sum(0)
            inside = sums.counts.sum() - sums.counts[own].sum()
            weight = solved(whole - gram, right - target, penalty * inside)
            exact = weight.astype(np.float64)
            # Sum of |x W - y|^2 over the fold: y is 1 once an image.
            error += float((exact * (gram @ exact)).sum() - 2 * (exact * target).sum() + sums.counts[own].sum())
            weights.append(weight)
        errors[penalty] = (error, weights)
    best = min(errors, key=lambda p: errors[p][0])
    return best, errors[best][1]


def usable_train(rows: ImageRows, readable: npt.NDArray[np.bool_]) -> IntArray | str:
    """Places of the training images that probes learn from, or what is missing."""
    train = np.flatnonzero(~rows.is_val & readable & (rows.labels >= 0))
    if len(train) < MIN_IMAGES or len(np.unique(rows.labels[train])) < 2:
        return f"{MIN_IMAGES} readable labelled training images of two classes"
    return train


def held_out(features: DiskFeatures, rows: ImageRows, sums: Sums, chosen: Chosen, readable: npt.NDArray[np.bool_]) -> HeldOut:
    """As ``probes.held_out``, of all images."""
    penalty, weights = chosen
    everything = sums.weight(range(TENTHS), penalty)
    folds = np.where(sums.tenth >= 0, sums.tenth // 2, -1)
    answers = np.full(len(rows.names), -1, np.int64)
    for places, block in features.blocks(np.flatnonzero(readable)):
        design = sums.design(block)
        for number, weight in [*enumerate(weights), (-1, everything)]:
            inside = folds[places] == number
            answers[places[inside]] = (design[inside] @ weight).argmax(1)
    return judged_answers(answers, folds, rows)


def learning_curve(
    features: DiskFeatures, rows: ImageRows, sums: Sums, penalty: float, readable: npt.NDArray[np.bool_]
) -> LearningCurve:
    """As ``probes.learning_curve``: shares of train are tenths, turned around once a repeat."""
    val = np.flatnonzero(readable & rows.is_val & (rows.labels >= 0))
    on_val = len(val) >= MIN_IMAGES
    sizes = np.zeros((len(CURVE_TENTHS), CURVE_REPEATS))
    accuracies = np.zeros_like(sizes)
    for repeat in range(CURVE_REPEATS):
        held = repeat % FOLDS
        turned = [(t + repeat) % TENTHS for t in range(TENTHS)]
        pool = turned if on_val else [t for t in turned if t // 2 != held]
        test = stratified_sample(val if on_val else np.flatnonzero(sums.tenth // 2 == held), rows.labels, CURVE_IMAGES)
        parts = [pool[: max(1, round(n * len(pool) / TENTHS))] for n in CURVE_TENTHS]
        weights = [sums.weight(part, penalty) for part in parts]
        right = np.zeros(len(parts))
        for places, block in features.blocks(test):
            design = sums.design(block)
            right += [((design @ w).argmax(1) == rows.labels[places]).sum() for w in weights]
        accuracies[:, repeat] = right / len(test)
        sizes[:, repeat] = [sums.counts[part].sum() for part in parts]
    return LearningCurve(np.round(sizes.mean(1)).astype(np.int64), accuracies, on_val)
