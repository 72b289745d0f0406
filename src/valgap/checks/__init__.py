"""The catalogue: one visible line per cause, in the order of CAUSES. Nothing registers itself."""

from __future__ import annotations

from valgap.checks import (
    batchnorm_drift,
    class_index_mismatch,
    normalization_mismatch,
    train_mode_at_validation,
    train_val_overlap,
)
from valgap.types import Check

CATALOGUE: tuple[Check, ...] = (
    train_val_overlap.CHECK,
    class_index_mismatch.CHECK,
    normalization_mismatch.CHECK,
    batchnorm_drift.CHECK,
    train_mode_at_validation.CHECK,
)
