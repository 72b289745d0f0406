"""How a check's outcome counts for a program that must decide: the one rule of JUnit, SARIF and `--fail-on`."""

from __future__ import annotations

from typing import Literal

from valgap.types import Clear, Crashed, Finding, Judged, NotApplicable

LIKELY = 0.5
Standing = Literal["confirmed", "suspected", "hint", "refuted", "clear", "open", "crashed"]
# What ``--fail-on`` names -> what then fails.
FAILING: dict[str, tuple[Standing, ...]] = {"confirmed": ("confirmed",), "suspected": ("confirmed", "suspected")}


def standing(judged: Judged) -> Standing:
    """A finding that re-runs refuted is none any more; one below `LIKELY` is a hint, on which nothing should fail."""
    outcome = judged.outcome
    if isinstance(outcome, Finding):
        if judged.verdict in ("confirmed", "refuted"):
            return judged.verdict
        return "suspected" if outcome.confidence >= LIKELY else "hint"
    if isinstance(outcome, Clear):
        return "clear"
    if isinstance(outcome, NotApplicable):
        return "open"
    assert isinstance(outcome, Crashed)
    return "crashed"
