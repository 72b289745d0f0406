"""What features are worth: a probe fitted on one set of images and asked about others, image by image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from valgap.features import probes
from valgap.stats import paired_difference
from valgap.types import FloatArray, IntArray, Measured

# A fold needs images of every class that is to be told from others.
MIN_IMAGES = 40
EVEN = 0.5
MAX_NATS = 8.0  # one image's loss counts no more than this, so that no single one decides


@dataclass(frozen=True)
class Answers:
    """What a probe said of N images."""

    right: npt.NDArray[np.bool_]  # (N,)
    loss: FloatArray  # (N,) nats

    @property
    def accuracy(self) -> float:
        """Share of right answers, 0..1."""
        return float(self.right.mean())


def answers(
    features: FloatArray,
    labels: IntArray,
    asked: Mapping[str, tuple[FloatArray, IntArray]],
    classes: int,
    weights: FloatArray | None = None,
) -> dict[str, Answers]:
    """Answers about each set of (features (M, D), labels (M,)) by a ridge probe fitted on (features (N, D), labels (N,)).

    ``weights`` (N,): how often each image was shown. Penalty and temperature are found on held-out folds of the first set.
    """
    names = list(asked)
    rows = np.arange(len(features))
    table = probes.standardised(np.concatenate([features, *(asked[n][0] for n in names)]).astype(np.float32), rows)
    inside = table[: len(features)]
    scores, penalty = probes.cross_validated(inside, labels, classes, probes.folds_of(labels))
    sharpness = probes.temperature(scores, labels)
    root = np.ones((len(labels), 1)) if weights is None else np.sqrt(np.asarray(weights, np.float64))[:, None]
    weight = probes.fit(inside * root, probes.one_hot(labels, classes) * root, penalty)
    found, first = {}, len(features)
    for name in names:
        own = asked[name][1]
        said = probes.softmax(sharpness * (table[first : first + len(own)] @ weight))
        first += len(own)
        loss = np.minimum(-np.log(np.maximum(said[np.arange(len(own)), own], 1e-12)), MAX_NATS)
        found[name] = Answers(said.argmax(1) == own, loss)
    return found


def held_out(features: FloatArray, labels: IntArray, classes: int) -> npt.NDArray[np.bool_]:
    """(N,) whether a probe fitted on the other folds gives each image its label."""
    table = probes.standardised(features.astype(np.float32), np.arange(len(features)))
    scores, _ = probes.cross_validated(table, labels, classes, probes.folds_of(labels))
    return np.asarray(scores.argmax(1) == labels)


def gained(before: Answers, after: Answers) -> tuple[Measured, Measured]:
    """(points of accuracy, nats of loss) that ``after`` has over ``before``, on the same images, with paired intervals."""
    points = paired_difference(before.right, after.right)
    return Measured(*(100 * v for v in points)), mean_difference(before.loss - after.loss)


def mean_difference(delta: FloatArray) -> Measured:
    """The mean of paired differences (N,) with its interval."""
    half = 1.96 * float(np.std(delta)) / max(1.0, np.sqrt(len(delta)))
    value = float(np.mean(delta))
    return Measured(value, value - half, value + half)


def likely_above(points: Measured, least: float) -> float:
    """0..1 that a measured difference is truly above ``least``; no more than an even bet where it may as well be none.

    Most stages of most programs are sound: a few images that are answered otherwise by chance must not outweigh that.
    """
    error = max(0.5, (points.high - points.low) / (2 * float(ndtri(0.975))))
    likely = float(ndtr((points.value - least) / error))
    return likely if points.low > 0 else min(EVEN, likely)


def likely_fall(nats: Measured, least: float) -> float:
    """0..1 that the loss truly falls by more than ``least`` nats; 0 where it may as well not fall."""
    error = max(1e-6, (nats.high - nats.low) / (2 * float(ndtri(0.975))))
    return float(ndtr((nats.value - least) / error)) if nats.low > 0 else 0.0


def above_chance(found: Answers, labels: IntArray) -> bool:
    """Whether the answers are better than always naming the largest class, by three standard errors."""
    chance = float(np.bincount(labels).max() / len(labels))
    return found.accuracy > chance + 3 * float(np.sqrt(chance * (1 - chance) / len(labels)))
