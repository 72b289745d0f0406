"""The printed accuracy is not that of the model's answers, whatever the reason.

What it looks for
    Numbers that the script printed as the accuracy of one validation pass, against the argmax of the logits that the model
    gave in it.

Why it hurts validation
    Only the number is wrong; but models are chosen by it.

What else looks like this
    Accuracies of single classes, their mean, of batches, of training or of other passes are told apart. Known wrong formulas
    are EVA503.

Remedy
    Take the argmax over classes, count over all images and divide once.

Source
    Localisation by substitution: delta debugging (Zeller 1999), applied to the stages of a training program.
"""

from __future__ import annotations

from valgap.checks.shared.stage_faults import outcome
from valgap.types import Case, Check, Clear, Finding, NotApplicable


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Ask for the comparison of this stage."""
    return outcome(case, "measure")


CHECK = Check(code="STG609", name="faulty_measure", stage="measure", detect=detect, doc=__doc__ or "")
