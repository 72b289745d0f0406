"""NaN or infinite numbers in the loss, the gradients or the inputs.

What it looks for
    The first place where one appears: input batches, the loss, or the gradients of a sampled step.

Why it hurts validation
    One NaN in a gradient makes every weight NaN, and every prediction the same class.

What else looks like this
    Mixed precision skips the first few steps on purpose when its loss scale is too high; the loss stays finite then.

Remedy
    Lower the learning rate, clip gradients, and look for a division by zero or a log of zero; drop broken images.

Source
    apex issue 43; PyTorch documentation of autograd.detect_anomaly and GradScaler.
"""

from __future__ import annotations

import numpy as np

from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, NotApplicable

# GradScaler halves its scale a few times at the start; a loss that stays finite with so few bad steps is sound.
SKIPPED_STEPS = 10


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Find the first number that is not finite."""
    train = case.run.of_phase("train")
    if not train:
        return NotApplicable("a training pass")
    inputs = sum(p.inputs.nonfinite for p in train if p.inputs is not None)
    losses = np.concatenate([p.steps.loss for p in train])
    samples = np.concatenate([p.samples.loss[p.samples.labelled & (p.samples.prediction >= 0)] for p in train])
    gradients = np.concatenate([p.steps.nonfinite_grad for p in train])
    # A step without a known loss value is nan as well, so only an infinite value or a nan among known ones counts.
    known = bool(np.isfinite(losses).any())
    bad_losses = int((~np.isfinite(losses)).sum()) if known else int(np.isinf(losses).sum())
    bad_samples = int((~np.isfinite(samples)).sum())
    bad_gradients = int((gradients == 1).sum())
    answers = _answers_lost(case)
    facts = (
        Evidence("input batches with NaN or infinity", inputs, 0, "batches"),
        Evidence("steps with a loss that is not finite", bad_losses, 0, "steps", len(losses)),
        Evidence("training samples with a loss that is not finite", bad_samples, 0, "samples", len(samples)),
        Evidence("sampled steps with a gradient that is not finite", bad_gradients, 0, "steps", int((gradients >= 0).sum())),
        Evidence("validation samples with a loss that is not finite", answers, 0, "samples"),
    )
    where = "inputs" if inputs else "loss" if bad_losses or bad_samples else "gradients"
    where = "validation" if where == "gradients" and answers else where
    few = bad_gradients <= SKIPPED_STEPS and where == "gradients"
    if not (inputs or bad_losses or bad_samples or answers) and few:
        return Clear("inputs, losses and gradients are finite", facts)
    return Finding(
        summary=f"NaN or infinite numbers, first in the {where}",
        severity_points=100 * _lost(case),
        confidence=0.97,
        evidence=(*facts, Evidence("first such step", _first(losses), "never")),
        remedy="lower the learning rate or clip gradients; if the inputs hold NaN, find and drop the broken images",
    )


def _answers_lost(case: Case) -> int:
    """Samples of the last validation without a finite loss, where they are most of those answered: the weights are lost.

    The last step of a short training may blow up without a step after it that would show.
    """
    last = case.run.last_validation
    if last is None:
        return 0
    loss = last.samples.loss[last.samples.labelled & (last.samples.prediction >= 0)]
    lost = int((~np.isfinite(loss)).sum())
    return lost if 2 * lost > len(loss) else 0


def _first(losses: np.ndarray) -> str:
    bad = np.flatnonzero(~np.isfinite(losses))
    return f"step {int(bad[0])}" if len(bad) else "unknown"


def _lost(case: Case) -> float:
    """Best minus last validation accuracy of the run itself, as a fraction; what the blow-up cost at least."""
    best, last = case.run.best_validation, case.run.last_validation
    if best is None or last is None:
        return 0.0
    return max(0.0, best.samples.accuracy - last.samples.accuracy)


def treat(case: Case, finding: Finding) -> Intervention:
    """A tenth of the learning rate."""
    return Intervention("scale_rate", {"phase": "train", "factor": 0.1})


CHECK = Check(code="TRN409", name="nonfinite_loss", stage="update", detect=detect, doc=__doc__ or "", treat=treat)
