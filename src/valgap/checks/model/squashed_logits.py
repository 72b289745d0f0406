"""A softmax, sigmoid or ReLU stands before a loss that applies its own.

What it looks for
    What goes into the loss. `cross_entropy` expects any real numbers: rows that are all within 0..1 and sum to 1 went
    through a softmax, all within 0..1 through a sigmoid, exact zeros and nothing negative through a ReLU. `nll_loss`
    expects logarithms of probabilities, so it must not see the probabilities themselves. Where the model's own outputs cannot
    be squashed ones, the squashing stands between model and loss. A softmax loses nothing, wherever it stands: another loss
    (of the logarithm) mends it. It is told of the loss, a sigmoid or ReLU at the model's end of the forward pass.

Why it hurts validation
    Squashed twice, the loss can hardly fall below ln C - 1 and its gradients fade; training is slow and stalls.

What else looks like this
    The first answers of a new head with few outputs may all lie within 0..1 by chance: they count only where that is
    unlikely, or where they fill that range without leaving it. log_softmax before cross_entropy changes nothing.
    `binary_cross_entropy` (without logits) expects a sigmoid.

Remedy
    Return the plain output of the last linear layer; apply softmax only to show probabilities.

Source
    human_activity_recognition issue 4, tf-dev-summit tutorial issue 3; PyTorch documentation of CrossEntropyLoss.
"""

from __future__ import annotations

import math

import numpy as np

from valgap.checks.shared.progress import shortfall
from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, LossStats, NotApplicable, RunRecord, Untreatable

# Rounding of a float32 (or bfloat16) softmax.
ROUNDING = 0.02
# Sums of a float32 softmax are 1 to within this.
EXACT = 1e-3
# Plain outputs are positive as often as not: the chance that all of a row are must be below the first, or the outputs must
# fill 0..1 by this share without leaving it.
CHANCE, FILLED = 0.01, 0.9
# Plain logits are negative for about half of the classes; so many exact zeros come from a ReLU only.
ZERO_SHARE = 0.05
UNMEASURED_POINTS = 5.0
EXPECT_LOGITS = ("cross_entropy", "nll_loss", "multi_margin_loss", "binary_cross_entropy_with_logits")


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Look at the range and the row sums of the loss's inputs in training."""
    train = case.run.last_train
    if train is None or train.loss is None:
        return NotApplicable("a training pass with a loss of torch.nn.functional")
    loss = train.loss
    facts = (
        Evidence("smallest input of the loss", loss.logit_min, "negative"),
        Evidence("largest input of the loss", loss.logit_max, None),
        Evidence("row sums of the inputs", f"{loss.row_sum_min:.3g} .. {loss.row_sum_max:.3g}", "anything but 1"),
    )
    kind = squashed_by(loss)
    beyond = model_gives_more(case.run)
    where = "what goes into the loss" if beyond else "the model's output"
    assumed = Evidence("cost (no re-run): assumed", UNMEASURED_POINTS, 0.0, "points")
    if kind is None and loss.name in EXPECT_LOGITS and loss.logit_min >= 0 and 0 < loss.logit_max <= 1:
        return NotApplicable("more training: so few outputs may all lie within 0..1 by chance, and have not moved far yet")
    if kind is None:
        return Clear("the loss gets what it expects", facts)
    left = shortfall(case.run)
    measured = left is not None and 100 * left.value > UNMEASURED_POINTS
    cost = left.evidence() if left is not None and measured else assumed
    return Finding(
        summary=f"{kind} before {loss.name}, which applies its own",
        severity_points=100 * left.value if left is not None and measured else UNMEASURED_POINTS,
        confidence=0.95 if kind != "a ReLU" else 0.85,
        evidence=(*facts, cost),
        remedy=f"remove {kind.removeprefix('a ')} from {where} (keep it for showing probabilities only)",
        stage="loss" if beyond or kind == "a softmax" else None,
    )


def model_gives_more(run: RunRecord) -> bool:
    """Whether the finished model's own outputs go beyond 0..1, by the losses that their cross-entropy gives.

    Of C outputs within 0..1 no image has a loss below log(1 + (C - 1) / e), or above log(1 + (C - 1) e).
    """
    model = run.trained_model
    table = run.closing.rescores.get("val_eval") if run.closing is not None else None
    if model is None or table is None or model.num_outputs < 2:
        return False
    loss, others = table.loss[np.isfinite(table.loss)], model.num_outputs - 1
    if not len(loss):
        return False
    return bool(loss.min() < math.log1p(others / math.e) - ROUNDING or loss.max() > math.log1p(others * math.e) + ROUNDING)


def squashed_by(loss: LossStats) -> str | None:
    """What squashed the inputs of a loss that expects unsquashed ones; None if nothing did."""
    unlikely = 0.5 ** max(1, loss.num_outputs) < CHANCE
    surely = unlikely or loss.logit_max - loss.logit_min >= FILLED
    unit = loss.logit_min >= 0 and loss.logit_max <= 1 + ROUNDING
    rounding = ROUNDING if surely else EXACT
    sums_to_one = abs(loss.row_sum_min - 1) < rounding and abs(loss.row_sum_max - 1) < rounding
    if unit and not surely and not (sums_to_one and loss.num_outputs > 1):
        return None
    if loss.num_outputs < 2 and loss.name != "binary_cross_entropy_with_logits":
        return None
    if loss.name in EXPECT_LOGITS[:3]:
        if unit and sums_to_one:
            return "a softmax"
        if unit and loss.logit_max > 0:
            return "a sigmoid"
        if loss.name == "cross_entropy" and loss.logit_min == 0 < loss.logit_max and loss.zero_fraction > ZERO_SHARE:
            return "a ReLU"
    if loss.name == "binary_cross_entropy_with_logits" and unit and loss.logit_max > 0:
        return "a softmax" if sums_to_one and loss.num_outputs > 1 else "a sigmoid"
    return None


def treat(case: Case, finding: Finding) -> Intervention | Untreatable:
    """The logarithm of the probabilities goes into the loss; a sigmoid or ReLU cannot be undone exactly."""
    last = case.run.last_train
    loss = last.loss if last is not None else None
    if loss is None or squashed_by(loss) != "a softmax" or loss.name != "cross_entropy":
        return Untreatable("what squashed the logits cannot be undone at the loss")
    return Intervention("undo_softmax", {"phase": "train"})


CHECK = Check(code="MOD306", name="squashed_logits", stage="forward", detect=detect, doc=__doc__ or "", treat=treat)
