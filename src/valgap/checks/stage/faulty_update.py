"""The updates leave the network worse than its features allow, whatever the reason.

What it looks for
    The finished model against probes on its last features and on those before training, all asked about validation images.

Why it hurts validation
    The head does not make of the features what can be made of them, or training spoils them.

What else looks like this
    Early stops and strong augmentation leave a small distance, for which room is left. Rates, schedules, frozen layers and
    optimizers have names of their own (MOD303 to MOD305, TRN401 to TRN415).

Remedy
    See what moves in a step and how far; train the head alone on the frozen features, and compare.

Source
    Localisation by substitution: delta debugging (Zeller 1999), applied to the stages of a training program.
"""

from __future__ import annotations

from valgap.checks.shared.stage_faults import outcome, treatment
from valgap.types import Case, Check, Clear, Finding, Intervention, NotApplicable, Untreatable


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Ask for the comparison of this stage."""
    return outcome(case, "update")


def treat(case: Case, finding: Finding) -> Intervention | Untreatable:
    """The recipe's steps in the place of the program's, as many."""
    return treatment(case, "update")


CHECK = Check(code="STG607", name="faulty_update", stage="update", detect=detect, doc=__doc__ or "", treat=treat)
