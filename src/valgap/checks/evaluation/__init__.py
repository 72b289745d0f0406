"""Causes in validation, its figures and what is kept (EVA). One visible line a cause, in the order of the codes."""

from __future__ import annotations

from valgap.checks.evaluation import (
    eval_mode_at_training,
    evaluated_other_data,
    incomparable_train_metric,
    last_not_best_checkpoint,
    miscomputed_metric,
    misordered_predictions,
    overconfidence,
    repeated_validation_samples,
    train_mode_at_validation,
    unreduced_metric,
    validation_too_small,
)
from valgap.types import Check

CHECKS: tuple[Check, ...] = (
    train_mode_at_validation.CHECK,
    eval_mode_at_training.CHECK,
    miscomputed_metric.CHECK,
    incomparable_train_metric.CHECK,
    overconfidence.CHECK,
    last_not_best_checkpoint.CHECK,
    validation_too_small.CHECK,
    evaluated_other_data.CHECK,
    misordered_predictions.CHECK,
    repeated_validation_samples.CHECK,
    unreduced_metric.CHECK,
)
