"""The loss is summed over the batch, at a rate that is meant for the mean.

What it looks for
    The gradient at the logits against that of the mean cross-entropy: as many times as large as a batch, while the finished
    network stays behind a probe on its own features.

Why it hurts validation
    Every step is as many times too long as the batch has images; with it, the rate depends on the batch size.

What else looks like this
    A sum at a rate that is as much smaller trains as well: then nothing is told. Gradients that are gathered over several
    backward passes are sums of batches (TRN407). A GradScaler's factor is taken out.

Remedy
    Use reduction='mean', or divide the learning rate by the batch size.

Source
    jax-ml/jax pull request 3113 (a loss without the mean); PyTorch documentation of CrossEntropyLoss.
"""

from __future__ import annotations

from valgap.checks.shared.stage_faults import of_kind, treatment_of_kind
from valgap.types import Case, Check, Clear, Finding, Intervention, NotApplicable, Untreatable

REMEDY = "use reduction='mean', or divide the learning rate by the batch size"


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Ask for the comparison of the stage, and for this kind of fault in it."""
    return of_kind(case, ("loss",), "summed", REMEDY, "the loss is no sum over the batch")


def treat(case: Case, finding: Finding) -> Intervention | Untreatable:
    """The mean cross-entropy of the same logits and targets."""
    return treatment_of_kind(case, ("loss",), "summed")


CHECK = Check(code="TRN418", name="summed_loss", stage="loss", detect=detect, doc=__doc__ or "", treat=treat)
