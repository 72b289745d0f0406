"""The probe: its regression against scikit-learn's, its folds, and what is held out of train."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from valgap.recipe import RECIPE
from valgap.training.decide import _halves, _held_out
from valgap.training.probe import fit_head, fit_probe, stratified_folds


def clouds(classes: int, images: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, 20) of overlapping clouds, far from standardised, and labels (N,)."""
    rng = np.random.default_rng(0)
    labels = np.arange(images) % classes
    centres = rng.normal(size=(classes, 20))
    return (3 + 2 * (centres[labels] + rng.normal(size=(images, 20)))).astype(np.float32), labels.astype(np.int64)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("strength", [1e-3, 1e-1, 1.0])
def test_the_regression_is_scikit_learns(classes: int, strength: float) -> None:
    features, labels = clouds(classes)
    weight, bias = fit_head(features, labels, classes, strength)
    scaled = (features - features.mean(0)) / np.sqrt(features.var(0) + features.var(0).mean())
    theirs = LogisticRegression(C=strength, max_iter=1000).fit(scaled.astype(np.float64), labels).predict_proba(scaled)
    logits = features @ weight.T + bias
    ours = np.exp(logits - logits.max(1, keepdims=True))
    ours /= ours.sum(1, keepdims=True)
    assert np.abs(ours - theirs).max() < 2e-3


def test_a_class_without_images_is_never_answered() -> None:
    features, labels = clouds(3)
    weight, bias = fit_head(features, np.array([0, 1, 3])[labels], 5, 0.1)
    logits = features @ weight.T + bias
    assert weight.shape == (5, 20)
    assert set(logits.argmax(1)) == {0, 1, 3}
    assert not weight[2].any()


def test_the_sweep_answers_for_images_it_did_not_see() -> None:
    rng = np.random.default_rng(1)
    features, labels = rng.normal(size=(100, 200)).astype(np.float32), rng.integers(0, 2, 100)
    probe = fit_probe(features, labels, 2, RECIPE.model_copy(update={"probe_inverse_l2": (1.0,)}), 0)
    assert (probe.logits(features).argmax(1) == labels).mean() == 1.0  # more numbers than images: all are learned by heart
    assert probe.train_accuracy < 0.65


def test_folds_hold_each_class_alike() -> None:
    labels = np.repeat([0, 1, 2], [50, 23, 5])
    folds = stratified_folds(labels, 5, 0)
    for label, count in enumerate((50, 23, 5)):
        share = np.bincount(folds[labels == label], minlength=5)
        assert share.max() - share.min() <= 1, (label, count)
    assert not np.array_equal(folds, stratified_folds(labels, 5, 1))


def test_what_is_held_out_has_of_each_class_its_share() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [100, 57, 3]))
    fit, out = _held_out(labels, 32, 0)
    assert sorted([*fit, *out]) == list(range(160))
    assert np.bincount(labels[out], minlength=3).tolist() in ([20, 11, 1], [20, 12, 0], [21, 11, 0])
    assert set(labels[out[:2]]) == {0, 1}  # not one class after the other
    assert not np.array_equal(np.sort(out), np.sort(_held_out(labels, 32, 1)[1]))
    halves = _halves(np.array([0, 0, 1, 1, 1, 2, 2]), 0)
    assert halves is not None
    assert all(set(np.array([0, 0, 1, 1, 1, 2, 2])[half]) == {0, 1, 2} for half in halves)
    assert _halves(np.array([0, 0, 1]), 0) is None
