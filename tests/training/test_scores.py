"""Scores against an independent implementation and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import balanced_accuracy_score, log_loss

from valgap.recipe import RECIPE
from valgap.training.decide import adjustment
from valgap.training.probe import Probe, fit_probe
from valgap.training.scores import calibration_error, fit_temperature, score


def test_scores_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    logits = rng.normal(size=(200, 4)) + 1.5 * np.eye(4)[labels]
    found = score(logits, labels, 4)
    assert found.accuracy == pytest.approx((logits.argmax(1) == labels).mean())
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, logits.argmax(1)))
    assert found.nll == pytest.approx(log_loss(labels, softmax(logits, axis=1)))


def test_calibration_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1]] * 10)
    assert calibration_error(probabilities, np.array([0] * 9 + [1])) == pytest.approx(0, abs=1e-12)
    assert calibration_error(probabilities, np.array([0] * 5 + [1] * 5)) == pytest.approx(0.4)


def test_temperature_finds_the_scale() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5000, 3)) * 2
    labels = np.array([rng.choice(3, p=row) for row in softmax(logits, axis=1)])
    assert fit_temperature(logits * 4, labels) == pytest.approx(4, rel=0.1)


def test_uneven_classes_are_adjusted_only_where_it_helps() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [180, 20])
    features = (rng.normal(size=(200, 5)) + 1.2 * labels[:, None]).astype(np.float32)
    probe = fit_probe(features, labels, 2, RECIPE, 0)
    reasons: list[str] = []
    bias = adjustment(probe, labels, 2, "auto", reasons)
    assert bias[1] - bias[0] == pytest.approx(np.log(9))
    assert "9 to 1" in reasons[0]
    sure = Probe(probe.weight, probe.bias, 1.0, 1.0, 1.0, (np.eye(2)[labels] * 50).astype(np.float32), probe.swept)
    assert not adjustment(sure, labels, 2, "auto", reasons).any()
    assert not adjustment(probe, np.arange(200) % 2, 2, "auto", reasons).any()
    assert not adjustment(probe, labels, 2, "none", reasons).any()
