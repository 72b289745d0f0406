"""Held-out class probabilities and learning curves from frozen features: ridge probes in closed form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize_scalar

from valgap.types import FloatArray, HeldOut, ImageRows, IntArray, LearningCurve

Array = npt.NDArray[np.float64]
FOLDS = 5
# Ridge penalties per training image and feature dimension, on standardised features.
PENALTIES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
CURVE_SHARES = (0.125, 0.25, 0.5, 0.75, 1.0)
CURVE_REPEATS = 6
MIN_IMAGES = 20


def held_out(embeddings: npt.NDArray[np.floating], rows: ImageRows, pictures: IntArray | None = None) -> HeldOut | str:
    """The answers of probes that never saw an image's label, or that of its copy, or why there are none.

    Args:
        pictures: (N,) equal for images that show one picture; None: each shows its own.
    """
    usable = np.isfinite(embeddings[:, 0])
    train = np.flatnonzero(~rows.is_val & usable & (rows.labels >= 0))
    classes = len(rows.classes)
    if len(train) < MIN_IMAGES or len(np.unique(rows.labels[train])) < 2:
        return f"{MIN_IMAGES} readable labelled training images of two classes"
    features = standardised(embeddings, train)
    labels = rows.labels[train]
    fold = folds_of(labels) if pictures is None else together(pictures[train], labels)
    scores, penalty = cross_validated(features[train], labels, classes, fold)
    sharpness = temperature(scores, labels)
    probabilities = np.full((len(rows.names), classes), np.nan)
    probabilities[train] = softmax(sharpness * scores)
    rest = np.setdiff1d(np.flatnonzero(usable), train)
    if len(rest):
        weight = fit(features[train], one_hot(labels, classes), penalty)
        probabilities[rest] = softmax(sharpness * (features[rest] @ weight))
    answers = np.where(np.isfinite(probabilities[:, 0]), probabilities.argmax(1), -1)
    folds = np.full(len(rows.names), -1, np.int64)
    folds[train] = fold
    return judged_answers(answers, folds, rows)


def judged_answers(answers: IntArray, folds: IntArray, rows: ImageRows) -> HeldOut:
    """How right the held-out answers (N,) are, on train where ``folds`` (N,) are known, and on val."""
    correct = (answers >= 0) & (answers == rows.labels)
    train, val = folds >= 0, rows.is_val & (answers >= 0) & (rows.labels >= 0)
    val_accuracy = float(correct[val].mean()) if val.any() else float("nan")
    return HeldOut(answers, correct, folds, float(correct[train].mean()), val_accuracy)


def standardised(embeddings: npt.NDArray[np.floating], reference: IntArray) -> Array:
    """(N, D + 1) features with the mean and spread of the reference rows taken out, and a constant column."""
    out = np.ones((len(embeddings), embeddings.shape[1] + 1))
    out[:, :-1] = scaled(embeddings, reference)
    return out


def scaled(embeddings: npt.NDArray[np.floating], reference: IntArray) -> npt.NDArray[np.floating]:
    """(N, D) features with the mean and spread of the reference rows taken out: one new array, of the type they have."""
    return rescaled(embeddings, *scale_of(embeddings, reference))


def scale_of(embeddings: npt.NDArray[np.floating], reference: IntArray) -> tuple[FloatArray, FloatArray]:
    """(mean, divisor), (D,) each, of the reference rows."""
    mean, std = embeddings[reference].mean(0), embeddings[reference].std(0)
    return mean, divisor(std)


def divisor(std: FloatArray) -> FloatArray:
    """(D,) standard deviations, kept away from 0."""
    return std + 1e-3 * max(1e-12, float(std.mean()))


def rescaled(embeddings: npt.NDArray[np.floating], mean: FloatArray, spread: FloatArray) -> npt.NDArray[np.floating]:
    """(N, D) features under a given scale: one new array, of the type they have."""
    out: npt.NDArray[np.floating] = embeddings - mean
    out /= spread
    # A feature that is all but dead on the reference must not explode on other images.
    np.clip(out, -8, 8, out=out)
    return out


def folds_of(labels: IntArray, folds: int = FOLDS, seed: int = 0) -> IntArray:
    """(n,) fold numbers, stratified by label as far as classes are large enough."""
    counts = np.bincount(labels)
    # Classes below the number of folds are stratified together.
    strata = np.where(counts[labels] < folds, -1, labels)
    if (strata == -1).sum() < folds:
        strata = labels if counts[counts > 0].min() >= folds else np.zeros_like(labels)
    return stratified(strata, folds, seed)


def together(pictures: IntArray, labels: IntArray, folds: int = FOLDS) -> IntArray:
    """(n,) fold numbers as those of ``folds_of``, the same for images of one picture."""
    _, first, own = np.unique(pictures, return_index=True, return_inverse=True)
    kept = np.sort(first)  # in the order of the images, so that without copies nothing changes
    return folds_of(labels[kept], folds)[np.argsort(np.argsort(first))][own]


def stratified(strata: IntArray, folds: int, seed: int) -> IntArray:
    """(n,) fold numbers, those of scikit-learn's StratifiedKFold, shuffled: its import takes longer than most probes."""
    _, first, own = np.unique(strata, return_index=True, return_inverse=True)
    place = np.argsort(np.argsort(first))[own]  # strata by their first member
    in_order, draw = np.sort(place), np.random.RandomState(seed)
    share = [np.bincount(in_order[i::folds], minlength=len(first)) for i in range(folds)]
    out = np.zeros(len(strata), np.int64)
    for number in range(len(first)):
        of_stratum = np.repeat(np.arange(folds), [s[number] for s in share])
        draw.shuffle(of_stratum)
        out[place == number] = of_stratum
    return out


def one_hot(labels: IntArray, classes: int) -> Array:
    """(n, C) of labels (n,)."""
    return np.eye(classes)[labels]


def fit(features: Array, targets: Array, penalty: float) -> Array:
    """(D, C) ridge weights; ``penalty`` is per image and feature dimension."""
    n, d = features.shape
    strength = penalty * n
    if n < d:
        gram = features @ features.T
        gram[np.diag_indices(n)] += strength
        return features.T @ cho_solve(cho_factor(gram, check_finite=False), targets, check_finite=False)
    gram = features.T @ features
    gram[np.diag_indices(d)] += strength
    return np.asarray(cho_solve(cho_factor(gram, check_finite=False), features.T @ targets, check_finite=False))


def scores_at(features: Array, targets: Array, fold: IntArray, penalties: Sequence[float]) -> Iterator[tuple[float, Array]]:
    """(penalty, out-of-fold scores (n, C)) for each penalty; products are made once for all penalties."""
    n, d = features.shape
    dual = n * (FOLDS - 1) < d * FOLDS
    whole = features @ features.T if dual else features.T @ features
    out = {p: np.zeros(targets.shape) for p in penalties}
    for number in np.unique(fold):
        inside, outside = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        if dual:
            gram, right = whole[np.ix_(inside, inside)], targets[inside]
            left = whole[np.ix_(outside, inside)]
        else:
            gram = whole - features[outside].T @ features[outside]
            right, left = features[inside].T @ targets[inside], features[outside]
        for penalty in penalties:
            damped = gram.copy()
            damped[np.diag_indices(len(damped))] += penalty * len(inside)
            out[penalty][outside] = left @ cho_solve(cho_factor(damped, check_finite=False), right, check_finite=False)
    yield from out.items()


def cross_validated(
    features: Array, labels: IntArray, classes: int, fold: IntArray, penalties: Sequence[float] | None = None
) -> tuple[Array, float]:
    """(out-of-fold scores (n, C), penalty per image) of the penalty with the lowest held-out squared error."""
    targets = one_hot(labels, classes)
    found = dict(scores_at(features, targets, fold, penalties or [p * features.shape[1] for p in PENALTIES]))
    best = min(found, key=lambda p: float(((found[p] - targets) ** 2).mean()))
    return found[best], best


def softmax(scores: Array) -> Array:
    """(n, C) probabilities of scores (n, C)."""
    raised = np.exp(scores - scores.max(1, keepdims=True))
    return np.asarray(raised / raised.sum(1, keepdims=True))


def temperature(scores: Array, labels: IntArray) -> float:
    """The factor on held-out scores (n, C) under which their softmax predicts the labels best (lowest log-loss)."""

    def loss(log_factor: float) -> float:
        scaled = np.exp(log_factor) * scores
        top = scaled.max(1)
        return float((np.log(np.exp(scaled - top[:, None]).sum(1)) + top - scaled[np.arange(len(labels)), labels]).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-1.0, 5.0), method="bounded").x))


def learning_curve(embeddings: npt.NDArray[np.floating], rows: ImageRows, seed: int = 0) -> LearningCurve | str:
    """Accuracies of probes on growing random shares of train, or why there are none."""
    usable = np.isfinite(embeddings[:, 0]) & (rows.labels >= 0)
    train, val = np.flatnonzero(usable & ~rows.is_val), np.flatnonzero(usable & rows.is_val)
    classes = len(rows.classes)
    on_val = len(val) >= MIN_IMAGES
    # What is not held out needs no images of its own: few training images are what is asked about.
    least = max(2 * FOLDS, 2 * len(np.unique(rows.labels[train]))) if on_val else 2 * MIN_IMAGES
    if len(train) < least or len(np.unique(rows.labels[train])) < 2:
        return f"{least} readable labelled training images of two classes"
    features = standardised(embeddings, train)
    rng = np.random.default_rng(seed)
    fold = folds_of(rows.labels[train])
    _, penalty = cross_validated(features[train], rows.labels[train], classes, fold)
    pool_size = len(train) if on_val else len(train) - len(train) // FOLDS
    sizes = np.unique([max(classes, round(pool_size * s)) for s in CURVE_SHARES])
    out = np.zeros((len(sizes), CURVE_REPEATS))
    for repeat in range(CURVE_REPEATS):
        pool, test = (train, val) if on_val else (train[fold != repeat % FOLDS], train[fold == repeat % FOLDS])
        order = rng.permutation(pool)
        for place, size in enumerate(sizes):
            part = order[:size]
            weight = fit(features[part], one_hot(rows.labels[part], classes), penalty)
            out[place, repeat] = float(((features[test] @ weight).argmax(1) == rows.labels[test]).mean())
    return LearningCurve(sizes.astype(np.int64), out, on_val)
