"""Optimizer steps as they are gathered, and the table that a pass writes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from valgap.seams.looking.tables import matrix, numbers
from valgap.seams.looking.tracked import TrackedModel
from valgap.seams.recording.step_norms import StepNorms


@dataclass
class StepRow:
    """One optimizer step; tensors stay on their device until the walk is written."""

    optimizer: int
    backwards: int
    rates: list[float]
    loss: torch.Tensor | None = None
    stale: torch.Tensor | None = None
    norms: StepNorms | None = None
    taken_back: torch.Tensor | None = None  # share of the last pass's moves that was undone before it
    pulled: torch.Tensor | None = None  # (2,) at the head's weights, see ``HeadPull``
    changed: bool | torch.Tensor = True  # whether a step was made at all; a 0-d tensor until it is read
    model: TrackedModel | None = None  # that the program itself may have changed


def step_table(rows: Sequence[StepRow]) -> dict[str, Any]:
    """The columns of ``types.StepTable``; here the device is waited for."""
    widest = max((len(r.rates) for r in rows), default=0)
    rates = np.full((len(rows), widest), np.nan, np.float32)
    for i, row in enumerate(rows):
        rates[i, : len(row.rates)] = row.rates
    measured = [r.norms for r in rows]
    norms = numbers([m.grad if m else None for m in measured])
    sampled = np.array([m is not None for m in measured], bool)
    bad = np.where(sampled, (~np.isfinite(norms)).astype(np.int8), np.int8(-1))
    stale = numbers([r.stale for r in rows])
    return {
        "loss": numbers([r.loss for r in rows]),
        "optimizer": np.array([r.optimizer for r in rows], np.int32),
        "backwards": np.array([r.backwards for r in rows], np.int32),
        "stale_gradients": np.where(np.isnan(stale), -1, stale > 0).astype(np.int8),
        "learning_rate": rates,
        "grad_norm": norms,
        "update_ratio": numbers([m.update_ratio if m else None for m in measured]),
        "group_grad_norm": matrix([m.group_grad if m else None for m in measured]),
        "group_update_ratio": matrix([m.group_update_ratio if m else None for m in measured]),
        "outside_ratio": numbers([m.outside_ratio if m else None for m in measured]),
        "taken_back": numbers([r.taken_back for r in rows]),
        "head_cosine": numbers([r.pulled[0] if r.pulled is not None else None for r in rows]),
        "head_ratio": numbers([r.pulled[1] if r.pulled is not None else None for r in rows]),
        "nonfinite_grad": bad.astype(np.int8),
    }
