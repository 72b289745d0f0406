"""There are too few validation images to tell.

What it looks for
    The 95 % interval of the validation accuracy, against the difference between training and validation.

Why it hurts validation
    With 30 images at 80 %, the interval is 27 points wide: most differences between runs, epochs and settings are chance.

What else looks like this
    A real gap lies outside the interval.

Remedy
    Validate on more images, or cross-validate; report the interval.

Source
    Wilson 1927; Brown, Cai and DasGupta 2001.
"""

from __future__ import annotations

from valgap.checks.shared.seen_part import is_whole, part_seen
from valgap.stats import wilson_interval
from valgap.types import Case, Check, Clear, Evidence, Finding, NotApplicable

# Half the interval's width from which on a difference that people act on (10 points) cannot be told from chance.
HALF_WIDTH = 0.10


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """State the interval and whether the gap lies within it."""
    val = case.run.last_validation
    if val is None or not val.samples.answered:
        return NotApplicable("a labelled validation pass")
    if not is_whole(case.run, val):
        return NotApplicable(f"a whole validation: the last one broke off after {part_seen(case.run, val)}")
    right = val.samples.correct
    low, high = wilson_interval(int(right.sum()), len(right))
    facts = (Evidence("validation accuracy", float(right.mean()), None, "", len(right), low, high),)
    half = (high - low) / 2
    if half < HALF_WIDTH:
        return Clear(f"{len(right)} validation images: known to about {100 * half:.1f} points", facts)
    return Finding(
        summary=f"{len(right)} validation images: the accuracy is known to {100 * half:.0f} points only",
        severity_points=0.0,
        confidence=0.8,
        evidence=facts,
        remedy="use more validation images, or cross-validate, before comparing runs",
    )


CHECK = Check(
    code="EVA507",
    name="validation_too_small",
    stage="measure",
    detect=detect,
    doc=__doc__ or "",
    limit=True,
    needs_whole_run="how far training and validation part in the end",
)
