"""Validation images reach the network otherwise than training images do, whatever the reason.

What it looks for
    Validation images as the network was given them, against the same files read soundly. Both are asked of one probe, which
    learned on a pretrained network's features from training images as the network saw them.

Why it hurts validation
    The network is asked about pictures of a kind that it never saw.

What else looks like this
    Files that differ between train and val are DAT106 and DAT108. Normalisation, channels, size and randomness have names of
    their own (PRE201 to PRE205).

Remedy
    Read validation images exactly as training images, without the random part.

Source
    Localisation by substitution: delta debugging (Zeller 1999), applied to the stages of a training program.
"""

from __future__ import annotations

from valgap.checks.shared.stage_faults import outcome, treatment
from valgap.types import Case, Check, Clear, Finding, Intervention, NotApplicable, Untreatable


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Ask for the comparison of this stage."""
    return outcome(case, "read_val")


def treat(case: Case, finding: Finding) -> Intervention | Untreatable:
    """The network is given the same files in validation, read soundly."""
    return treatment(case, "read_val")


CHECK = Check(code="STG604", name="faulty_read_val", stage="read_val", detect=detect, doc=__doc__ or "", treat=treat)
