"""Gradients are not cleared between steps.

What it looks for
    At the first `backward` after each optimizer step, whether the last step's gradients are still there and not zero.

Why it hurts validation
    Each step then follows the sum of all gradients so far: a huge momentum without decay. Training swings or diverges.

What else looks like this
    Gradient accumulation calls `backward` several times before one step, and clears afterwards; that is not counted.

Remedy
    Call `optimizer.zero_grad()` once per step, before `backward`.

Source
    PyTorch tutorial "Zeroing out gradients"; PyTorch forum, "why do we need zero_grad".
"""

from __future__ import annotations

import numpy as np

from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, NotApplicable

# A fact per step. Programs with several optimizers may leave one's gradients for a step on purpose, so most steps must agree.
SHARE = 0.5
UNMEASURED_POINTS = 5.0
MOST_POINTS = 70.0  # steps grow without end


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Count the steps that began on old gradients."""
    flags = [p.steps.stale_gradients for p in case.run.of_phase("train")]
    seen = np.concatenate(flags) if flags else np.zeros(0, np.int8)
    seen = seen[seen >= 0]
    if len(seen) == 0:
        return NotApplicable("two optimizer steps with a backward between them")
    share = float((seen == 1).mean())
    facts = (Evidence("steps that began with gradients of the step before", share, 0.0, "", len(seen)),)
    if share < SHARE:
        return Clear("gradients were cleared between steps", facts)
    return Finding(
        summary="gradients of earlier steps are never cleared",
        severity_points=UNMEASURED_POINTS,
        confidence=0.95,
        evidence=(*facts, Evidence("cost (no re-run): assumed", UNMEASURED_POINTS, 0.0, "points")),
        remedy="call optimizer.zero_grad() before each backward() (once per step)",
        most_points=MOST_POINTS,
    )


def treat(case: Case, finding: Finding) -> Intervention:
    """Gradients are cleared before the first backward after each step."""
    return Intervention("zero_gradients", {"phase": "train"})


CHECK = Check(code="TRN407", name="accumulated_gradients", stage="update", detect=detect, doc=__doc__ or "", treat=treat)
