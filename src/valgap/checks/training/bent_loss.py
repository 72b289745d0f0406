"""The loss pulls the answers elsewhere than to the right classes: weights, smoothing or signs bend it.

What it looks for
    The cosine of the gradient at the logits and that of plain cross-entropy in the first training pass, where the finished
    network stays behind a probe on its own features.

Why it hurts validation
    Strong class weights together with label smoothing push every answer to the rare classes; a wrong sign pushes it away from
    the right one.

What else looks like this
    Class weights of a few to one and smoothing alone leave the direction nearly as it is. Soft targets (mixup) are not
    judged. A softmax before the loss (MOD306) changes the size of the gradient more than its direction.

Remedy
    Train with plain cross_entropy of raw logits, then add class weights or smoothing one at a time, and weaker.

Source
    pytorch/pytorch issue 104776 (label smoothing with class weights).
"""

from __future__ import annotations

from valgap.checks.shared.stage_faults import of_kind, treatment_of_kind
from valgap.types import Case, Check, Clear, Finding, Intervention, NotApplicable, Untreatable

REMEDY = "train with plain cross_entropy of raw logits, then add class weights or smoothing one at a time, and weaker"


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Ask for the comparison of the stage, and for this kind of fault in it."""
    return of_kind(case, ("loss",), "bent", REMEDY, "the loss pulls to the right classes")


def treat(case: Case, finding: Finding) -> Intervention | Untreatable:
    """The mean cross-entropy of the same logits and targets."""
    return treatment_of_kind(case, ("loss",), "bent")


CHECK = Check(code="TRN419", name="bent_loss", stage="loss", detect=detect, doc=__doc__ or "", treat=treat)
