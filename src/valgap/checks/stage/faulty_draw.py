"""Training does not draw its samples as it should, whatever the reason.

What it looks for
    The samples that all training passes drew, against those that the training set has: how many, how often, of which classes.
    Where some are missing, a probe on the features of a pretrained network learns once from the samples as often as they were
    drawn and once from all; the difference on validation is the cost.

Why it hurts validation
    What is never drawn is never learned.

What else looks like this
    Samplers that balance classes draw some images often and cost nothing here. Sorted or repeated orders (TRN408, TRN416) and
    repeated files (DAT109) have names of their own.

Remedy
    Draw every sample once an epoch, in random order.

Source
    Localisation by substitution: delta debugging (Zeller 1999), applied to the stages of a training program.
"""

from __future__ import annotations

from valgap.checks.shared.stage_faults import outcome, treatment
from valgap.types import Case, Check, Clear, Finding, Intervention, NotApplicable, Untreatable


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Ask for the comparison of this stage."""
    return outcome(case, "draw")


def treat(case: Case, finding: Finding) -> Intervention | Untreatable:
    """Training draws every sample once an epoch, in random order."""
    return treatment(case, "draw")


CHECK = Check(code="STG601", name="faulty_draw", stage="draw", detect=detect, doc=__doc__ or "", treat=treat)
