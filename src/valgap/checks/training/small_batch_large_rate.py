"""A large learning rate on batches of a few images.

What it looks for
    Batches below 8 images together with what makes a rate too high (see TRN401): the head trained again at a tenth of the
    rate does better, or large updates with a training loss that does not fall.

Why it hurts validation
    The gradient of a few images is mostly noise. Its step must be small enough to average over many batches; a rate that
    suits 32 or 256 images throws the weights about.

What else looks like this
    Too high a rate for any batch (TRN401). BatchNorm in train mode on a few images (MOD308) is noisy at any rate.

Remedy
    Scale the rate with the batch (rate x batch / 32), or gather gradients over several batches before a step.

Source
    Goyal et al. 2017 (linear scaling); Smith and Le 2018 (noise scale).
"""

from __future__ import annotations

from dataclasses import replace

from valgap.checks.shared.progress import batch_size
from valgap.checks.training.learning_rate_too_high import SMALL_BATCH, judged
from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, NotApplicable

USUAL_BATCH = 32


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """A rate that is too high, and a batch that is small."""
    size = batch_size(case.run)
    if not size:
        return NotApplicable("a training pass")
    fact = Evidence("images per optimizer step (median)", size, f"{USUAL_BATCH} or more")
    if size >= SMALL_BATCH:
        return Clear("batches are not small", (fact,))
    outcome = judged(case.run)
    if not isinstance(outcome, Finding):
        return outcome if isinstance(outcome, NotApplicable) else Clear(outcome.summary, (fact, *outcome.evidence))
    return replace(
        outcome,
        summary=f"the learning rate is too high for {size:g} images a step",
        evidence=(fact, *outcome.evidence),
        remedy=f"multiply the rate by about {size / USUAL_BATCH:.2g}, or take batches of {USUAL_BATCH}",
    )


def treat(case: Case, finding: Finding) -> Intervention:
    """The rate scaled to the batch."""
    size = batch_size(case.run) or USUAL_BATCH
    return Intervention("scale_rate", {"factor": min(1.0, size / USUAL_BATCH), "phase": "train"})


CHECK = Check(
    code="TRN410",
    name="small_batch_large_rate",
    stage="update",
    detect=detect,
    doc=__doc__ or "",
    treat=treat,
    needs_whole_run="whether the training settles at this rate",
)
