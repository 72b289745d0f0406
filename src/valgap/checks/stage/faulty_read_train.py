"""Training images reach the network worse than their files are, whatever the reason.

What it looks for
    Images as the network was given them, against the same files read soundly. Both pass a pretrained network; a probe that
    learns from either is asked about validation images. More is asked for than usual augmentation costs.

Why it hurts validation
    What is lost on the way from the file to the network cannot be learned.

What else looks like this
    Augmentation that is too strong (PRE207) is a fault of this stage with a name. Images that are bad as files are DAT108.

Remedy
    Look at training images as the network sees them, beside their files, after each step of the transform.

Source
    Localisation by substitution: delta debugging (Zeller 1999), applied to the stages of a training program.
"""

from __future__ import annotations

from valgap.checks.shared.stage_faults import outcome, treatment
from valgap.types import Case, Check, Clear, Finding, Intervention, NotApplicable, Untreatable


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Ask for the comparison of this stage."""
    return outcome(case, "read_train")


def treat(case: Case, finding: Finding) -> Intervention | Untreatable:
    """The network is given the same files, read soundly."""
    return treatment(case, "read_train")


CHECK = Check(code="STG603", name="faulty_read_train", stage="read_train", detect=detect, doc=__doc__ or "", treat=treat)
