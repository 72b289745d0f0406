"""The loss pulls the logits elsewhere than cross-entropy does, whatever the reason.

What it looks for
    The gradient at the logits in training, against that of the mean cross-entropy on the same logits and targets: direction
    and size. It is a fault only where the training also stays behind a probe on its own features.

Why it hurts validation
    The network descends on something else than the error that validation measures.

What else looks like this
    Class weights, smoothing and soft targets bend the gradient on purpose.

Remedy
    Use cross_entropy with raw logits, class indices and the mean over the batch.

Source
    Localisation by substitution: delta debugging (Zeller 1999), applied to the stages of a training program.
"""

from __future__ import annotations

from valgap.checks.shared.stage_faults import outcome, treatment
from valgap.types import Case, Check, Clear, Finding, Intervention, NotApplicable, Untreatable


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Ask for the comparison of this stage."""
    return outcome(case, "loss")


def treat(case: Case, finding: Finding) -> Intervention | Untreatable:
    """The mean cross-entropy of the same logits and targets."""
    return treatment(case, "loss")


CHECK = Check(code="STG606", name="faulty_loss", stage="loss", detect=detect, doc=__doc__ or "", treat=treat)
