"""Causes in how the network is trained (TRN). One visible line a cause, in the order of the codes."""

from __future__ import annotations

from valgap.checks.training import (
    accumulated_gradients,
    bent_loss,
    excessive_weight_decay,
    learning_rate_too_high,
    learning_rate_too_low,
    loss_divided_by_processes,
    missing_regularization,
    nonfinite_loss,
    overtraining,
    repeated_order,
    slow_optimizer,
    small_batch_large_rate,
    stopped_too_early,
    summed_loss,
    too_few_epochs,
    training_on_validation,
    unshuffled_training,
    unsynchronised_gradients,
    unusual_settings,
    wrong_schedule,
    wrong_step_count,
)
from valgap.types import Check

CHECKS: tuple[Check, ...] = (
    learning_rate_too_high.CHECK,
    learning_rate_too_low.CHECK,
    too_few_epochs.CHECK,
    overtraining.CHECK,
    missing_regularization.CHECK,
    excessive_weight_decay.CHECK,
    accumulated_gradients.CHECK,
    unshuffled_training.CHECK,
    nonfinite_loss.CHECK,
    small_batch_large_rate.CHECK,
    slow_optimizer.CHECK,
    unusual_settings.CHECK,
    training_on_validation.CHECK,
    wrong_step_count.CHECK,
    wrong_schedule.CHECK,
    unsynchronised_gradients.CHECK,
    repeated_order.CHECK,
    loss_divided_by_processes.CHECK,
    summed_loss.CHECK,
    bent_loss.CHECK,
    stopped_too_early.CHECK,
)
