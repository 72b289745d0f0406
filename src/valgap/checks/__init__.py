"""The catalogue: a folder a family, each with one visible line a cause, in the order of the codes. Nothing registers itself."""

from __future__ import annotations

from valgap.checks import data, evaluation, model, preprocessing, stage, training
from valgap.types import Check

CATALOGUE: tuple[Check, ...] = (
    *data.CHECKS,
    *preprocessing.CHECKS,
    *model.CHECKS,
    *training.CHECKS,
    *evaluation.CHECKS,
    *stage.CHECKS,
)
