"""EVA501."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import TRAIN, VAL, found, healthy, modes, quiet, rescored, samples, with_phase, without
from valgap.checks.evaluation.train_mode_at_validation import CHECK
from valgap.types import Case, Clear, Finding, NotApplicable, Untreatable

IDS = np.arange(TRAIN, TRAIN + VAL)


def in_train_mode(**changes: float) -> Case:
    return with_phase(healthy(), "validation", modes=modes(1.0, grad_enabled=0.0, **changes))


@pytest.mark.parametrize("after", [0.8, 0.95])
def test_points_are_eval_mode_minus_recorded(after: float) -> None:
    case = in_train_mode()
    last = case.run.last_validation
    assert last is not None
    finding = found(CHECK.detect(rescored(case, val_eval=samples(IDS, after))))
    assert finding.severity_points == pytest.approx(100 * (after - last.samples.accuracy))


@pytest.mark.parametrize("share", [0.6, 1.0])
def test_share_of_layers(share: float) -> None:
    finding = found(CHECK.detect(in_train_mode(batchnorm_training=share, dropout_training=0.0)))
    assert finding.evidence[1].value == share


def test_batch_statistics_in_eval_mode_are_another_fault() -> None:
    case = with_phase(healthy(), "validation", modes=modes(0.0, grad_enabled=0.0, batchnorm_training=1.0))
    assert "eval()" not in found(CHECK.detect(case)).remedy
    assert "eval()" in found(CHECK.detect(in_train_mode())).remedy


def test_sound_and_harmless_are_silent() -> None:
    assert isinstance(CHECK.detect(healthy()), Clear)
    assert quiet(CHECK.detect(in_train_mode(batchnorm_layers=0, dropout_layers=0)))
    assert isinstance(CHECK.detect(in_train_mode(batchnorm_training=0.0, dropout_training=0.0)), Clear)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "validation")), NotApplicable)


@pytest.mark.parametrize("training", [0.0, 1.0])
def test_features_that_are_made_once_are_made_in_eval_mode(training: float) -> None:
    """Validation itself is a head on rows of numbers: what counts is the pass over images before it."""
    case = healthy()
    last = case.run.last_validation
    assert last is not None
    images = case.run.passes[0].inputs
    assert images is not None
    made = replace(last, index=0, phase="other", inputs=images, modes=modes(training, grad_enabled=0.0))
    rest = tuple(
        replace(p, index=p.index + 1, inputs=None if p.phase == "validation" else p.inputs, modes=modes(0.0))
        for p in case.run.passes
    )
    case = Case(replace(case.run, passes=(made, *rest)))
    outcome = CHECK.detect(case)
    assert isinstance(outcome, Finding) is bool(training)
    if isinstance(outcome, Finding):
        assert "features" in outcome.summary and isinstance(CHECK.treat and CHECK.treat(case, outcome), Untreatable)
