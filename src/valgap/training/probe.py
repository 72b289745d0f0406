"""A logistic probe on frozen features, its L2 chosen by cross-validation on the training images alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from valgap.recipe import Recipe
from valgap.training.scores import cautious_temperature, fit_temperature, nll

# The sweep looks at this many images at most; the chosen strength, which acts per image, is scaled to all of them.
SWEEP_IMAGES = 4_000
# With one image of each class nothing can be held out: what did best then, and its temperature (`make bench-few-shot`).
ONE_STRENGTH, ONE_TEMPERATURE = 1e-3, 0.06
# Multiplications in one step of a regression (images x features x classes): below, one thread takes milliseconds.
FEW_PRODUCTS = 200_000_000
# The regression ends where no slope of its mean loss is steeper, as scikit-learn's does.
TOLERANCE = 1e-4
Flat = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
Linear = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]  # weight (C, D), bias (C,)


@dataclass(frozen=True)
class Probe:
    """A linear classifier on raw features: logits = features @ weight.T + bias, as sure as it should be.

    A fine-tuning that began with a head as soft as a strong penalty leaves it would spend its steps on the head's size.
    """

    weight: npt.NDArray[np.float32]  # (C, D)
    bias: npt.NDArray[np.float32]  # (C,)
    inverse_l2: float
    temperature: float  # what the regression's own weights and biases were divided by, as held-out images say
    train_accuracy: float  # cross-validated on train, 0..1; nan where no class has two images
    # Out-of-fold logits (M, C) of the training images ``swept`` (M,), from classifiers that did not see them.
    held_out: npt.NDArray[np.float32]
    swept: npt.NDArray[np.int64]

    def logits(self, features: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(N, C) of features (N, D)."""
        return np.asarray(features @ self.weight.T + self.bias)

    def again(self, features: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], num_classes: int) -> Flat:
        """(weight, bias) of a part of the images, at the strength and the temperature of all."""
        return fit_head(features, labels, num_classes, self.inverse_l2, self.temperature)


def fit_probe(
    features: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], num_classes: int, recipe: Recipe, seed: int
) -> Probe:
    """The probe of features (N, D) and labels (N,); the standardisation is folded into weight and bias."""
    mean, std = scale_of(features)
    swept = _some(len(labels), seed)
    alone = np.bincount(labels[swept], minlength=num_classes)[labels[swept]] < 2
    if alone.all():  # nothing can be held out
        weight, bias = fit_head(features, labels, num_classes, ONE_STRENGTH, ONE_TEMPERATURE)
        nothing = np.full((len(swept), num_classes), np.nan, np.float32)
        return Probe(weight, bias, ONE_STRENGTH, ONE_TEMPERATURE, float("nan"), nothing, swept)
    with _threads_that_pay(len(swept) * features.shape[1] * num_classes):
        held_out, strength = _sweep((features[swept] - mean) / std, labels[swept], alone, num_classes, recipe, seed)
    held_out, asked = held_out[~alone], swept[~alone]
    temperature = cautious_temperature(held_out, labels[asked])
    weight, bias = fit_head(features, labels, num_classes, strength * len(swept) / len(labels), temperature)
    right = held_out.argmax(1) == labels[asked]
    return Probe(weight, bias, strength, temperature, float(right.mean()), held_out / np.float32(temperature), asked)


def fit_head(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    num_classes: int,
    inverse_l2: float,
    temperature: float = 1.0,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """(weight (C, D), bias (C,)) on raw features at one strength, without a sweep; both divided by the temperature."""
    mean, std = scale_of(features)
    with _threads_that_pay(features.size * num_classes):
        weight, bias = _linear((features - mean) / std, labels, num_classes, inverse_l2, 1000)
    raw = weight / std / temperature
    return raw.astype(np.float32), (bias / temperature - raw @ mean).astype(np.float32)


def scale_of(features: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """((D,) mean, (D,) divisor) of features (N, D): of each variance and the mean of all.

    A variance of few images is noise, and dividing by it makes the weakest features as loud as the strongest: of five images a
    class that cost up to twenty points (`make bench-few-shot`). A constant against it: Tusher et al. 2001, "SAM".
    """
    variance = features.var(0)
    return features.mean(0), np.sqrt(variance + variance.mean() + 1e-12)


def _threads_that_pay(products: int) -> threadpool_limits:
    # Threads that wait for each other's part of so small a product spin: on a busy machine they took 15 times as long.
    return threadpool_limits(1 if products < FEW_PRODUCTS else None)


def _some(count: int, seed: int) -> npt.NDArray[np.int64]:
    if count <= SWEEP_IMAGES:
        return np.arange(count, dtype=np.int64)
    return np.sort(np.random.default_rng(seed).permutation(count)[:SWEEP_IMAGES]).astype(np.int64)


def _sweep(
    scaled: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    alone: npt.NDArray[np.bool_],
    num_classes: int,
    recipe: Recipe,
    seed: int,
) -> tuple[npt.NDArray[np.float32], float]:
    """(out-of-fold logits (N, C) at the best strength, that strength): that of the lowest loss at its own temperature.

    Images that are ``alone`` (N,) in their class are learnt from and never asked; their logits are 0.

    The sweep goes from the strongest penalty on, and ends where weaker ones only do harm: two in a row of which each is no
    more accurate than the one before, at a higher loss. They are those that take longest.
    """
    counts = np.bincount(labels[~alone])
    # Images of a class are dealt one to each fold, so that others of it are always there to learn from; with more folds than a
    # class has images, it would be asked about with fewer images than its rivals have.
    folds = max(2, min(recipe.probe_folds, int(np.median(counts[counts > 0]))))
    fold = np.where(alone, -1, stratified_folds(labels, folds, seed))
    parts = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(folds)]
    parts = [p for p in parts if len(p[1])]
    found: list[Linear | None] = [None] * len(parts)  # each goes on from its last, stronger penalty
    best: tuple[float, float, npt.NDArray[np.float32]] | None = None
    last, harm = (-1.0, np.inf), 0
    for strength in sorted(recipe.probe_inverse_l2):
        logits = np.zeros((len(labels), num_classes), np.float32)
        for k, (fit, out) in enumerate(parts):
            found[k] = weight, bias = _linear(scaled[fit], labels[fit], num_classes, strength, 200, found[k])
            logits[out] = scaled[out] @ weight.astype(np.float32).T + bias
        answers, asked = logits[~alone], labels[~alone]
        accuracy, loss = float((answers.argmax(1) == asked).mean()), nll(answers, asked)
        cooled = nll(answers / fit_temperature(answers, asked), asked)
        if best is None or cooled < best[0]:
            best = cooled, strength, logits
        harm = harm + 1 if accuracy <= last[0] and loss > last[1] else 0
        last = accuracy, loss
        if harm == 2:
            break
    assert best is not None
    return best[2], best[1]


def _linear(
    scaled: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    num_classes: int,
    strength: float,
    steps: int,
    start: Linear | None = None,
) -> Linear:
    """The logistic regression with the least (mean loss + L2 / 2), of strength / N for the weights, none for biases; by L-BFGS.

    ``strength`` is scikit-learn's C. A class without images gets no weight and a low bias.
    """
    classes, codes = np.unique(labels, return_inverse=True)
    count, width = len(labels), scaled.shape[1]
    target = np.eye(len(classes), dtype=np.float32)[codes]
    # Of two classes only the difference of their weights is penalised: it lies in both, half in each.
    l2 = (2.0 if len(classes) == 2 else 1.0) / (strength * count)

    def loss(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        both = flat.reshape(len(classes), width + 1)
        weight = both[:, :width]
        logits = scaled @ weight.astype(np.float32).T + both[:, width].astype(np.float32)
        logits -= logits.max(1, keepdims=True)
        shares = np.exp(logits)
        total = shares.sum(1, keepdims=True)
        value = float(np.log(total).sum() - (logits * target).sum()) / count
        error = (shares / total - target) / count
        slope = np.column_stack([error.T @ scaled + l2 * weight, error.sum(0)])
        return value + 0.5 * l2 * float(np.square(weight).sum()), slope.ravel()

    begin = np.zeros((len(classes), width + 1)) if start is None else np.column_stack(start)[classes]
    options: Any = {"maxiter": steps, "gtol": TOLERANCE, "ftol": 64 * np.finfo(float).eps, "maxls": 50}
    found = minimize(loss, begin.ravel(), jac=True, method="L-BFGS-B", options=options).x.reshape(len(classes), -1)
    weight, bias = np.zeros((num_classes, width)), np.full(num_classes, -1e3)
    weight[classes], bias[classes] = found[:, :width], found[:, width]
    return weight, bias


def stratified_folds(labels: npt.NDArray[np.int64], folds: int, seed: int) -> npt.NDArray[np.int64]:
    """(N,) the fold of each image, 0..folds-1: the images of a class are dealt out in random order, one fold after the other."""
    order = np.random.default_rng(seed).permutation(len(labels))
    dealt = order[np.argsort(labels[order], kind="stable")]
    found = np.empty(len(labels), np.int64)
    found[dealt] = np.arange(len(labels)) % folds
    return found
