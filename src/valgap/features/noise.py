"""How many labels are wrong, from held-out class probabilities: two models of how labels come about, and which of them holds.

The probabilities are sharpened (by one power) until they are those of the true class; labels then follow a transition matrix.
In the plain model a wrong label is any other class alike: it finds planted or clerical noise to the point, and leaves images
that are merely hard alone. In the free model each pair of classes has its own rate, as people confuse classes; it is believed
as far as it explains the labels better than its number of rates alone would let it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import chdtrc, chdtri, ndtri

from valgap.types import IntArray

Array = npt.NDArray[np.float64]
STEPS = 40
# Logarithms of the power that sharpens the probabilities: from half to twelvefold.
LOG_POWERS = (-0.7, 2.5)
# Pseudo-labels of the plain model in each row of the free one.
PRIOR_LABELS = 5.0
# p-values of the likelihood ratio between which the free model begins to be believed, and is believed fully. Planted noise, alike
# for all classes, mostly stays above .05; human noise (aggre, random1, worse) below .004.
FREE_P = (0.05, 0.01)
# People err most on images that the probes find ambiguous too, which the free model takes for the true class's share: it sees
# about 1 in 1.6 of what they add. One number, set on CIFAR-10N aggre, random1 and worse (off by 2.1 points at most); random2 and
# random3, which it was not set on, are off by 2.1 and 2.3. ``python benchmarks/labels.py DATA --rates`` prints them all.
LIFT = 1.6
# Standard deviation of the estimate beyond sampling, as a share: under the plain model, and added under the free one.
MODEL_ERROR, FREE_ERROR = 0.008, 0.01


def plain(counts: Array) -> Array:
    """The transition matrix (C, C) with one rate of error, for expected counts (C, C) of (true, given)."""
    classes = len(counts)
    rate = float(np.clip(1 - np.trace(counts) / counts.sum(), 0.0, 1.0))
    out = np.full((classes, classes), rate / max(1, classes - 1))
    np.fill_diagonal(out, 1 - rate)
    return out


def free(counts: Array) -> Array:
    """The transition matrix with a rate of its own for each pair, drawn a little to the plain one."""
    out = counts + PRIOR_LABELS * plain(counts)
    return np.asarray(out / out.sum(1, keepdims=True))


def expected_counts(truth: Array, transition: Array, labels: IntArray) -> tuple[Array, Array]:
    """(expected counts (C, C) of (true, given), P(true | image, label) (n, C)), for P(true | image) (n, C) and labels (n,)."""
    joint = truth * transition[:, labels].T
    joint /= joint.sum(1, keepdims=True)
    counts = np.zeros(transition.shape)
    for given in np.unique(labels):
        counts[:, given] = joint[labels == given].sum(0)
    return counts, joint


def fitted(logs: Array, labels: IntArray, shape: Callable[[Array], Array]) -> tuple[float, float]:
    """(share of wrong labels, log-likelihood) of the most likely power and transition matrix of a shape.

    ``logs`` (n, C) are logarithms of held-out probabilities, ``labels`` (n,). Expectation maximisation inside, a search outside.
    """

    def at(log_power: float) -> tuple[float, float]:
        raised = np.exp(np.exp(log_power) * (logs - logs.max(1, keepdims=True)))
        truth = raised / raised.sum(1, keepdims=True)
        classes = logs.shape[1]
        transition = plain(np.full((classes, classes), 0.1 / max(1, classes - 1)) + np.eye(classes))
        for _ in range(STEPS):
            transition = shape(expected_counts(truth, transition, labels)[0])
        likelihood = (truth * transition[:, labels].T).sum(1)
        return float(1 - (truth.mean(0) * np.diag(transition)).sum()), float(np.log(likelihood + 1e-12).sum())

    best = minimize_scalar(lambda p: -at(p)[1], bounds=LOG_POWERS, method="bounded", options={"xatol": 0.02})
    return at(float(best.x))


def plain_interval(logs: Array, labels: IntArray) -> tuple[float, float]:
    """The 90 % interval of the plain model's rate: where the likelihood, at its best power, is not significantly lower."""
    classes, rates = logs.shape[1], np.linspace(0, 0.6, 121)
    best = np.full(len(rates), -np.inf)
    for log_power in np.linspace(*LOG_POWERS, 33):
        raised = np.exp(np.exp(log_power) * (logs - logs.max(1, keepdims=True)))
        own = raised[np.arange(len(labels)), labels] / raised.sum(1)
        chance = own + rates[:, None] * ((1 - own) / max(1, classes - 1) - own)
        best = np.maximum(best, np.log(chance + 1e-12).sum(1))
    inside = rates[2 * (best.max() - best) <= chdtri(1, 0.1)]
    return float(inside[0]), float(inside[-1])


def noise_rate(probabilities: Array, labels: IntArray) -> tuple[float, float, float]:
    """(estimated share of wrong labels, lower and upper end of its 90 % interval), for held-out probabilities (n, C)."""
    classes = probabilities.shape[1]
    logs = np.log(probabilities + 1e-9)
    alike, likelihood = fitted(logs, labels, plain)
    pairwise, likelier = fitted(logs, labels, free)
    p_value = float(chdtrc(max(1, classes * (classes - 1) - 1), max(0.0, 2 * (likelier - likelihood))))
    believed = float(np.interp(-ndtri(p_value), -ndtri(FREE_P), [0.0, 1.0]))
    rate = float(np.clip(alike + believed * LIFT * max(0.0, pairwise - alike), 0, 1))
    low, high = plain_interval(logs, labels)
    beyond = 1.645 * (MODEL_ERROR + believed * FREE_ERROR)
    below, above = (float(np.hypot(max(0.0, d), beyond)) for d in (alike - low, high - alike))
    return rate, max(0.0, rate - below), min(1.0, rate + above)
