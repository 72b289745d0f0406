"""How the effect of a cause went over the epochs of shortened arms: what it would be at full length lies where it leads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from valgap.experiments.arm_result import ArmResult, last_scored
from valgap.experiments.verdicts import MEANINGFUL_POINTS, compared

LEAST_EPOCHS = 2


def after(arms: Sequence[ArmResult], epochs: int) -> list[ArmResult] | None:
    """The same arms as they stood after so many training passes; None where one of them has no validation by then."""
    found = []
    for arm in arms:
        one = last_scored(arm.record, arm.spec.validation, epochs) if arm.record is not None else None
        if one is None:
            return None
        found.append(replace(arm, samples=one.samples))
    return found


def effect_after(before: Sequence[ArmResult], treated: Sequence[ArmResult], epochs: int) -> float | None:
    """Points that the treatment gains after so many epochs; None where that cannot be told."""
    both = min(len(before), len(treated))
    control, others = after(before[:both], epochs), after(treated[:both], epochs)
    found = compared(control, others) if both and control is not None and others is not None else None
    return 100 * float((found.right[1] - found.right[0]).mean()) if found is not None else None


def course(name: str, before: Sequence[ArmResult], treated: Sequence[ArmResult], epochs: int, total: int) -> str:
    """In words, how an effect stood after half of the arms' ``epochs`` and after all, of ``total``; empty if not known."""
    half = epochs // 2
    if not LEAST_EPOCHS <= epochs < total:
        return ""
    early, late = effect_after(before, treated, half), effect_after(before, treated, epochs)
    if early is None or late is None:
        return ""
    leads = "it is steady"
    if abs(late - early) >= MEANINGFUL_POINTS:
        grows = abs(late) > abs(early) and early * late >= 0
        leads = "it still grows, and is larger at full length" if grows else "it shrinks, and is smaller at full length"
        leads += ", if that goes on"
    return f"{name}: {early:+.1f} points after {half}, {late:+.1f} after {epochs} of {total} epochs: {leads}"
