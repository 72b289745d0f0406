"""The model answers otherwise in validation than its weights do in eval mode, whatever the reason.

What it looks for
    The answers that validation recorded, against those of the same weights in eval mode, image by image.

Why it hurts validation
    What depends on mode, batch mates or order adds noise or bias to every answer.

What else looks like this
    Weights that were loaded after the last validation: then nothing is compared. Train mode at validation is EVA501.

Remedy
    Call model.eval() before validation; let nothing in forward depend on the other images of a batch.

Source
    Localisation by substitution: delta debugging (Zeller 1999), applied to the stages of a training program.
"""

from __future__ import annotations

from valgap.checks.shared.stage_faults import outcome
from valgap.types import Case, Check, Clear, Finding, Intervention, NotApplicable


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Ask for the comparison of this stage."""
    return outcome(case, "forward")


def treat(case: Case, finding: Finding) -> Intervention:
    """The model in eval mode while it validates."""
    return Intervention("eval_mode", {"phase": "validation"})


CHECK = Check(code="STG605", name="faulty_forward", stage="forward", detect=detect, doc=__doc__ or "", treat=treat)
