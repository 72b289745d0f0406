"""Causes in how images are read and prepared (PRE). One visible line a cause, in the order of the codes."""

from __future__ import annotations

from valgap.checks.preprocessing import (
    augmented_validation,
    changed_in_place,
    channel_order_mismatch,
    excessive_augmentation,
    geometry_mismatch,
    missing_augmentation,
    normalization_mismatch,
    repeated_augmentation,
    scrambled_pixels,
    turned_images,
    value_range_mismatch,
)
from valgap.types import Check

CHECKS: tuple[Check, ...] = (
    normalization_mismatch.CHECK,
    value_range_mismatch.CHECK,
    channel_order_mismatch.CHECK,
    augmented_validation.CHECK,
    geometry_mismatch.CHECK,
    missing_augmentation.CHECK,
    excessive_augmentation.CHECK,
    scrambled_pixels.CHECK,
    repeated_augmentation.CHECK,
    turned_images.CHECK,
    changed_in_place.CHECK,
)
