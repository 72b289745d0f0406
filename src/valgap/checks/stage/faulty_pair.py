"""Images and targets do not belong together, whatever the reason.

What it looks for
    The target that the loss saw for each sample, against the folder that its file lies in, under the naming of classes that
    fits best. It is a fault where probes on sound features agree better with the folders than with the targets.

Why it hurts validation
    The network learns, or is scored by, another image's class.

What else looks like this
    Folders that are no classes (dates, cameras) tell less of the images than the targets do, and are not compared. Wrong
    labels in the files themselves are DAT104 and DAT105.

Remedy
    Take file name and label from the same row, and look at ten images with their targets.

Source
    Localisation by substitution: delta debugging (Zeller 1999), applied to the stages of a training program.
"""

from __future__ import annotations

from valgap.checks.shared.stage_faults import outcome, treatment
from valgap.types import Case, Check, Clear, Finding, Intervention, NotApplicable, Untreatable


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Ask for the comparison of this stage."""
    return outcome(case, "pair")


def treat(case: Case, finding: Finding) -> Intervention | Untreatable:
    """Each sample has the class of its file's folder as its target."""
    return treatment(case, "pair")


CHECK = Check(code="STG602", name="faulty_pair", stage="pair", detect=detect, doc=__doc__ or "", treat=treat)
