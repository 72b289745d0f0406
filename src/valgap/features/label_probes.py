"""Two kinds of probes that can be fitted again and again on changed soft labels: a Gaussian kernel and a linear discriminant.

Both score every image by a probe that never saw its label. They err in different ways: the kernel follows the neighbours, the
discriminant one direction a class. On real human noise and on planted noise their average ranks better than either.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize_scalar

from valgap.features.probes import rescaled, scale_of, softmax
from valgap.types import FloatArray, IntArray

Array = npt.NDArray[np.float64]
Small = npt.NDArray[np.float32]
# (places that a probe is fitted on, places that it scores)
Split = tuple[IntArray, IntArray]
LANDMARKS = 1_200
# Kernel: exp(-WIDTH * squared distance / its median); its ridge penalty, where the kernel's diagonal is 1.
WIDTH = 1.0
PENALTY = 1.0
# Keeps the landmarks' kernel invertible in float32; small beside the penalty.
JITTER = 1e-3
LOG_FACTORS = (-5.0, 5.0)
# How far the pooled covariance is drawn to a multiple of the identity; the most likely under held-out labels is taken.
SHRINKAGES = (0.1, 0.3, 0.5, 0.7, 0.9)


def splits_of(fold: IntArray, val: IntArray) -> list[Split]:
    """The folds of the training images (``fold`` >= 0), and all of them for val."""
    train = np.flatnonzero(fold >= 0)
    found = [(train[fold[train] != k], train[fold[train] == k]) for k in np.unique(fold[train])]
    return [*found, (train, val)] if len(val) else found


class KernelProbe:
    """Ridge regression on a Gaussian kernel of blocks of features, through Nystroem landmarks: its cost grows linearly."""

    def __init__(self, blocks: Sequence[FloatArray], splits: Sequence[Split], seed: int = 0) -> None:
        train = np.union1d(splits[0][0], splits[0][1])
        self._map = KernelMap(blocks, train, seed)
        self._features = self._map.of(blocks)
        self._splits = splits
        self._factors = [cho_factor(_ridged(g, PENALTY), check_finite=False) for g in _grams(self._features, train, splits)]

    def scores(self, targets: Array, labels: IntArray) -> Array:
        """(N, C) held-out scores for soft labels (N, C); ``labels`` are not used, the penalty is fixed."""
        out = np.full(targets.shape, np.nan)
        for (inside, outside), factor in zip(self._splits, self._factors, strict=True):
            mean = targets[inside].mean(0)
            right = self._features[inside].T @ (targets[inside] - mean).astype(np.float32)
            weight = cho_solve(factor, right, check_finite=False)
            out[outside] = self._features[outside] @ weight + mean
            self._last = weight, mean
        return out

    def of(self, blocks: Sequence[FloatArray]) -> Array:
        """(n, C) scores of other images by the last split's probe, for the targets that were given last."""
        weight, mean = self._last
        return np.asarray(self._map.times(blocks, weight) + mean, np.float64)


class DiscriminantProbe:
    """Gaussians of one shrunk covariance about each class's mean: linear discriminant analysis under soft labels."""

    def __init__(self, blocks: Sequence[FloatArray], splits: Sequence[Split]) -> None:
        train = np.union1d(splits[0][0], splits[0][1])
        self._scales = [scale_of(b, train) for b in blocks]
        self._features = self._scaled(blocks)
        self._splits = splits
        self._train = train
        self._grams = _grams(self._features, train, splits)
        self._shrinkage: float | None = None
        self._fitted: dict[float, tuple[Small, Small]] = {}

    def _scaled(self, blocks: Sequence[FloatArray]) -> Small:
        parts = [rescaled(b, *scale) / np.float32(np.sqrt(b.shape[1])) for b, scale in zip(blocks, self._scales, strict=True)]
        return np.concatenate(parts, axis=1).astype(np.float32, copy=False)

    def of(self, blocks: Sequence[FloatArray]) -> Array:
        """(n, C) log-odds of other images by the last split's probe, for the targets that were given last."""
        weight, offset = self._fitted[self._shrinkage or SHRINKAGES[0]]
        return np.asarray(self._scaled(blocks) @ weight + offset, np.float64)

    def scores(self, targets: Array, labels: IntArray) -> Array:
        """(N, C) held-out log-odds for soft labels (N, C); the first call fits the shrinkage to the hard ``labels`` (N,)."""
        if self._shrinkage is not None:
            return self._at(targets, (self._shrinkage,))[0]
        found = self._at(targets, SHRINKAGES)
        place = int(np.argmin([_log_loss(s[self._train], labels[self._train]) for s in found]))
        self._shrinkage = SHRINKAGES[place]
        return found[place]

    def _at(self, targets: Array, shrinkages: Sequence[float]) -> list[Array]:
        out = [np.full(targets.shape, np.nan) for _ in shrinkages]
        for (inside, outside), gram in zip(self._splits, self._grams, strict=True):
            soft = targets[inside].astype(np.float32)
            counts = np.maximum(soft.sum(0), 1e-3)
            means = soft.T @ self._features[inside] / counts[:, None]
            scatter = (gram - (means.T * counts) @ means) / len(inside)
            level = max(1e-9, float(np.trace(scatter)) / len(scatter))
            for scores, share in zip(out, shrinkages, strict=True):
                factor = cho_factor(_ridged((1 - share) * scatter, share * level), check_finite=False)
                weight = cho_solve(factor, means.T, check_finite=False)
                offset = np.log(counts / counts.sum()) - 0.5 * (means.T * weight).sum(0)
                scores[outside] = self._features[outside] @ weight + offset
                self._fitted[share] = weight, offset  # in the end those of the last split
        return out


def _grams(features: Small, train: IntArray, splits: Sequence[Split]) -> list[Small]:
    """Products (D, D) of the features that each split is fitted on: those of train without the held-out ones."""
    whole = features[train].T @ features[train]
    held = [np.intersect1d(outside, train) for _, outside in splits]
    return [whole - features[h].T @ features[h] for h in held]


def _ridged(gram: Small, strength: float) -> Small:
    out = gram.copy()
    out[np.diag_indices(len(out))] += strength
    return out


def calibrated_scores(scores: Array, labels: IntArray, train: IntArray) -> Array:
    """Probabilities (N, C) under the factor on the scores (N, C) at which those of train predict its labels (N,) best.

    As if one label more had been seen, that could be any class: probes that are right on all of them are not wholly sure.
    """
    moved = centred(scores)
    return softmax(calibration(moved[train], labels[train]) * moved)


def centred(scores: Array) -> Array:
    """Scores (n, C) less the largest of each row."""
    return np.asarray(scores - scores.max(1, keepdims=True))


def calibration(known: Array, labels: IntArray) -> float:
    """The factor on scores (n, C), their largest 0, at which they predict their labels (n,) best."""
    doubt = 1 / (len(known) + 1)
    own, any_class = known[np.arange(len(known)), labels].mean(), known.mean()

    def loss(log_factor: float) -> float:
        factor = np.exp(log_factor)
        spread = np.log(np.exp(factor * known).sum(1)).mean()
        return float(spread - factor * ((1 - doubt) * own + doubt * any_class))

    return float(np.exp(minimize_scalar(loss, bounds=LOG_FACTORS, method="bounded").x))


def _log_loss(scores: Array, labels: IntArray) -> float:
    """Of calibrated scores (n, C) under labels (n,)."""
    probabilities = calibrated_scores(scores, labels, np.arange(len(labels)))
    return float(-np.log(probabilities[np.arange(len(labels)), labels] + 1e-12).mean())


class KernelMap:
    """Blocks of features (N, D_b) -> (N, m), whose products are Gaussian kernels, each block scaled to one median distance."""

    def __init__(self, blocks: Sequence[FloatArray], train: IntArray, seed: int = 0) -> None:
        marks = np.sort(np.random.default_rng(seed).permutation(train)[:LANDMARKS])
        self._scales = [scale_of(block, train) for block in blocks]
        self._factors = []
        for block, scale in zip(blocks, self._scales, strict=True):
            unit = _unit(block[marks], scale)
            median = float(np.median(np.maximum(2 - 2 * unit @ unit.T, 0)))
            self._factors.append(np.float32(np.sqrt(WIDTH / max(1e-9, median) / len(blocks))))
        self._marks = self._points([b[marks] for b in blocks])
        self._among = np.linalg.cholesky(_ridged(_kernel(self._marks, self._marks), JITTER))

    def _points(self, blocks: Sequence[FloatArray]) -> Small:
        parts = [_unit(b, s) * f for b, s, f in zip(blocks, self._scales, self._factors, strict=True)]
        return np.concatenate(parts, axis=1)

    def of(self, blocks: Sequence[FloatArray]) -> Small:
        """(n, m) of n images."""
        points = _kernel(self._points(blocks), self._marks)
        return np.asarray(solve_triangular(self._among, points.T, lower=True, check_finite=False).T, np.float32)

    def times(self, blocks: Sequence[FloatArray], weight: Small) -> Small:
        """(n, C) products of n images' rows with weights (m, C), at the cost of their kernel alone."""
        turned = solve_triangular(self._among, weight, lower=True, trans="T", check_finite=False)
        return np.asarray(_kernel(self._points(blocks), self._marks) @ turned, np.float32)


def _unit(block: FloatArray, scale: tuple[FloatArray, FloatArray]) -> Small:
    unit = rescaled(block, *scale).astype(np.float32, copy=False)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-9)
    return unit


def _kernel(a: Small, b: Small) -> Small:
    distance = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return np.asarray(np.exp(-np.maximum(distance, 0)), np.float32)
