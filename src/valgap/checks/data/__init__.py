"""Causes in the images, labels and splits (DAT). One visible line a cause, in the order of the codes."""

from __future__ import annotations

from valgap.checks.data import (
    class_imbalance,
    class_index_mismatch,
    degraded_images,
    distribution_shift,
    few_samples_drawn,
    misaligned_labels,
    one_class_validation,
    repeated_train_images,
    spurious_shortcut,
    too_few_images,
    train_val_overlap,
    unmatched_classes,
    wrong_train_labels,
    wrong_val_labels,
)
from valgap.types import Check

CHECKS: tuple[Check, ...] = (
    train_val_overlap.CHECK,
    class_index_mismatch.CHECK,
    class_imbalance.CHECK,
    wrong_train_labels.CHECK,
    wrong_val_labels.CHECK,
    distribution_shift.CHECK,
    too_few_images.CHECK,
    degraded_images.CHECK,
    repeated_train_images.CHECK,
    spurious_shortcut.CHECK,
    unmatched_classes.CHECK,
    one_class_validation.CHECK,
    misaligned_labels.CHECK,
    few_samples_drawn.CHECK,
)
