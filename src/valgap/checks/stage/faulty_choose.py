"""The run ends with weights of an epoch that is not its best, whatever the reason.

What it looks for
    The last validation against the best one, chosen on one half of the images and scored by the other.

Why it hurts validation
    A better network was there, and is thrown away.

What else looks like this
    Curves that jump from epoch to epoch have a best epoch by chance; halves do not fall for it.

Remedy
    Keep a copy of the weights of the best epoch, and load it at the end.

Source
    Localisation by substitution: delta debugging (Zeller 1999), applied to the stages of a training program.
"""

from __future__ import annotations

from valgap.checks.shared.stage_faults import outcome
from valgap.types import Case, Check, Clear, Finding, Intervention, NotApplicable


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Ask for the comparison of this stage."""
    return outcome(case, "choose")


def treat(case: Case, finding: Finding) -> Intervention:
    """The best epoch's answers scored, chosen by the other half of the images; nothing is trained."""
    return Intervention("score_best_epoch")


CHECK = Check(
    code="STG608",
    name="faulty_choose",
    stage="choose",
    detect=detect,
    doc=__doc__ or "",
    treat=treat,
    needs_whole_run="which epoch is the best",
)
