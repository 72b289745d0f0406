"""Faults without a name of their own, told by their stage (STG). One visible line a cause, in the order of the codes."""

from __future__ import annotations

from valgap.checks.stage import (
    faulty_choose,
    faulty_draw,
    faulty_forward,
    faulty_loss,
    faulty_measure,
    faulty_pair,
    faulty_read_train,
    faulty_read_val,
    faulty_update,
)
from valgap.types import Check

CHECKS: tuple[Check, ...] = (
    faulty_draw.CHECK,
    faulty_pair.CHECK,
    faulty_read_train.CHECK,
    faulty_read_val.CHECK,
    faulty_forward.CHECK,
    faulty_loss.CHECK,
    faulty_update.CHECK,
    faulty_choose.CHECK,
    faulty_measure.CHECK,
)
