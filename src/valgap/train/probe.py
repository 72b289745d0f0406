"""A logistic probe on frozen features, its L2 chosen by cross-validation on the training images alone."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score

from valgap.recipe import Recipe


@dataclass(frozen=True)
class Probe:
    """A linear classifier on raw features: logits = features @ weight.T + bias."""

    weight: npt.NDArray[np.float32]  # (C, D)
    bias: npt.NDArray[np.float32]  # (C,)
    inverse_l2: float
    train_accuracy: float  # cross-validated on train, 0..1; nan when a class is too small to fold

    def logits(self, features: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(N, C) of features (N, D)."""
        return np.asarray(features @ self.weight.T + self.bias)


def fit_probe(
    features: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], num_classes: int, recipe: Recipe, seed: int
) -> Probe:
    """The probe of features (N, D) and labels (N,); the standardisation is folded into weight and bias."""
    mean, std = features.mean(0), features.std(0) + 1e-6
    scaled = (features - mean) / std
    smallest = int(np.bincount(labels, minlength=num_classes).min())
    folds = min(recipe.probe_folds, smallest)
    scores: dict[float, float] = {}
    with warnings.catch_warnings():
        # Weak penalties on separable data do not converge in time; the sweep then simply does not choose them.
        warnings.simplefilter("ignore", ConvergenceWarning)
        if folds >= 2:
            cut = StratifiedKFold(folds, shuffle=True, random_state=seed)
            for strength in recipe.probe_inverse_l2:
                model = LogisticRegression(C=strength, max_iter=200)
                scores[strength] = float(cross_val_score(model, scaled, labels, cv=cut).mean())
        best = max(scores, key=lambda s: (scores[s], -s)) if scores else 1e-2
        final = LogisticRegression(C=best, max_iter=1000).fit(scaled, labels)
    weight, bias = final.coef_, final.intercept_
    if len(weight) == 1:  # two classes: one row; logits [0, z]
        weight = np.concatenate([np.zeros_like(weight), weight])
        bias = np.concatenate([np.zeros_like(bias), bias])
    raw = weight / std
    return Probe(
        weight=raw.astype(np.float32),
        bias=(bias - raw @ mean).astype(np.float32),
        inverse_l2=best,
        train_accuracy=scores.get(best, float("nan")),
    )
