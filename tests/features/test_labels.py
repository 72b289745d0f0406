"""Probes under soft labels, softened labels, and the share of wrong labels, against independent arithmetic and planted truth."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.kernel_ridge import KernelRidge

from valgap.features.label_probes import JITTER, PENALTY, DiscriminantProbe, KernelProbe, calibrated_scores, splits_of
from valgap.features.labels import held_out_probabilities, label_errors, softened
from valgap.features.noise import fitted, free, noise_rate, plain
from valgap.features.probes import folds_of, held_out, one_hot, softmax, standardised
from valgap.types import ImageRows


def clouds(n: int, classes: int, apart: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = rng.normal(size=(classes, 12))
    centres *= apart / np.linalg.norm(centres, axis=1, keepdims=True)
    return (centres[labels] + rng.normal(size=(n, 12))).astype(np.float32), labels


def test_the_kernel_probe_is_kernel_ridge_held_out() -> None:
    x, y = clouds(120, 3, 3.0)
    fold = folds_of(y)
    splits = splits_of(fold, np.array([], np.int64))
    targets = one_hot(y, 3)
    found = KernelProbe([x], splits).scores(targets, y)
    unit = standardised(x, np.arange(120))[:, :-1]
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    gamma = 1 / np.median(np.maximum(2 - 2 * unit @ unit.T, 0))
    inside, outside = splits[2]
    mean = targets[inside].mean(0)
    theirs = KernelRidge(alpha=PENALTY, kernel="rbf", gamma=gamma).fit(unit[inside], targets[inside] - mean)
    assert np.allclose(found[outside], theirs.predict(unit[outside]) + mean, atol=20 * JITTER)


def test_the_discriminant_probe_orders_as_an_independent_one_and_takes_soft_labels() -> None:
    x, y = clouds(150, 3, 3.0)
    splits = splits_of(folds_of(y), np.array([], np.int64))
    probe = DiscriminantProbe([x], splits)
    found = probe.scores(one_hot(y, 3), y)
    inside, outside = splits[0]
    scaled = standardised(x, np.arange(150))[:, :-1]
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=probe._shrinkage).fit(scaled[inside], y[inside])
    ours = found[outside] - found[outside].mean(1, keepdims=True)
    other = theirs.decision_function(scaled[outside])
    assert np.allclose(ours, other - other.mean(1, keepdims=True), rtol=1e-3, atol=0.02)
    alike = probe.scores(np.full((150, 3), 1 / 3), y)  # classes that share every image cannot be told apart
    assert np.allclose(alike, alike[:, :1], atol=1e-3)


def test_no_probe_sees_the_label_it_is_asked_about() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(300, 12)).astype(np.float32), rng.integers(0, 4, 300)
    found = held_out_probabilities([[x]], y, 4, folds_of(y), np.array([], np.int64))
    assert (found.argmax(1) == y).mean() < 0.35  # pure noise cannot be predicted, refits or not


def test_probes_that_are_always_right_are_not_wholly_sure() -> None:
    labels = np.arange(99) % 3
    found = calibrated_scores(10 * one_hot(labels, 3), labels, np.arange(99))
    assert found.max() == pytest.approx(1 - (2 / 3) / 100, abs=1e-3)


def test_softened_labels_return_what_was_flipped() -> None:
    truth = np.arange(2000) % 4
    given = np.where(np.random.default_rng(0).random(2000) < 0.3, (truth + 1) % 4, truth)
    sure = np.full((2000, 4), 0.04) + 0.84 * one_hot(truth, 4)
    assert (softened(sure, given).argmax(1) == truth).mean() > 0.95
    assert np.allclose(softened(sure, given).sum(1), 1)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 0.35])
def test_the_share_of_wrong_labels_is_found_whatever_the_power(share: float) -> None:
    rng = np.random.default_rng(4)
    truth_probabilities = softmax(2.0 * rng.normal(size=(2000, 5)))
    truth = np.array([rng.choice(5, p=p) for p in truth_probabilities])  # a third of the images are hard
    bad = rng.random(2000) < share
    given = np.where(bad, (truth + rng.integers(1, 5, 2000)) % 5, truth)
    blunt = softmax(0.6 * np.log(truth_probabilities))
    rate, low, high = noise_rate(blunt, given)
    assert rate == pytest.approx(bad.mean(), abs=0.03)
    assert low <= rate <= high


def test_pairwise_confusion_is_believed_only_where_it_explains_more() -> None:
    rng = np.random.default_rng(5)
    truth = rng.integers(0, 5, 3000)
    probabilities = softmax(6.0 * one_hot(truth, 5) + rng.normal(size=(3000, 5)))
    swapped = np.where((truth < 2) & (rng.random(3000) < 0.4), 1 - truth, truth)
    logs = np.log(probabilities)
    assert fitted(logs, swapped, free)[1] > fitted(logs, swapped, plain)[1] + 50
    assert fitted(logs, swapped, free)[0] == pytest.approx((swapped != truth).mean(), abs=0.02)


def test_transition_matrices_are_stochastic() -> None:
    counts = np.array([[8.0, 2.0, 0.0], [1.0, 9.0, 0.0], [0.0, 0.0, 10.0]])
    assert plain(counts)[0].tolist() == pytest.approx([0.9, 0.05, 0.05])
    assert np.allclose(free(counts).sum(1), 1)


def test_what_no_probe_has_learnt_is_no_likely_class() -> None:
    x, y = clouds(480, 6, 6.0)
    is_val = np.arange(480) >= 320
    learnt = is_val | (y % 3 > 0)  # two of six classes are never drawn in training
    x, y, is_val = x[learnt], y[learnt], is_val[learnt]
    names = tuple(str(i) for i in range(len(y)))
    rows = ImageRows(names, names, y, is_val, tuple("abcdef"))
    held = held_out(x, rows)
    assert not isinstance(held, str)
    found = label_errors([[x]], rows, held)
    known = is_val & (y % 3 > 0)
    assert not set(found.likely[known].tolist()) & {0, 3} and found.val_rate < 0.1
    assert np.isnan(found.wrong[is_val & (y % 3 == 0)]).all()


def test_probes_shown_to_other_images_say_what_held_out_ones_would() -> None:
    """The last split's probe, given rows that it was not fitted on, against the same rows as a split's outside."""
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, 300)
    blocks = [(rng.normal(size=(300, d)) + rng.normal(size=(3, d))[labels]).astype(np.float32) for d in (40, 12)]
    inside, outside = np.arange(200), np.arange(200, 300)
    targets = np.eye(3)[labels]
    first, second = inside[::2], inside[1::2]
    splits = [(first, second), (second, first), (inside, outside)]
    for kind in (KernelProbe, DiscriminantProbe):
        probe = kind(blocks, splits)
        scores = probe.scores(targets, labels)
        assert np.allclose(probe.of([b[outside] for b in blocks]), scores[outside], atol=1e-3)
