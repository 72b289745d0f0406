"""Causes in the network, its weights and its layers (MOD). One visible line a cause, in the order of the codes."""

from __future__ import annotations

from valgap.checks.model import (
    batchnorm_drift,
    excessive_dropout,
    forgotten_features,
    frozen_too_much,
    per_process_batchnorm,
    shared_initial_state,
    squashed_logits,
    stale_averaged_model,
    tiny_batch_batchnorm,
    untrained_parameters,
    weights_not_loaded,
    wrong_head_size,
)
from valgap.types import Check

CHECKS: tuple[Check, ...] = (
    weights_not_loaded.CHECK,
    batchnorm_drift.CHECK,
    untrained_parameters.CHECK,
    forgotten_features.CHECK,
    frozen_too_much.CHECK,
    squashed_logits.CHECK,
    wrong_head_size.CHECK,
    tiny_batch_batchnorm.CHECK,
    excessive_dropout.CHECK,
    shared_initial_state.CHECK,
    stale_averaged_model.CHECK,
    per_process_batchnorm.CHECK,
)
