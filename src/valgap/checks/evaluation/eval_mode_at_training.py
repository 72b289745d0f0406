"""Training goes on in eval mode after the first validation.

What it looks for
    A first training pass in training mode and later ones in eval mode, of a model with BatchNorm or Dropout.

Why it hurts validation
    Dropout no longer regularises, and BatchNorm keeps the statistics of the first epoch while the weights move on.

What else looks like this
    Holding BatchNorm in eval mode from the very first step is a good choice for fine-tuning and is not reported.

Remedy
    Call `model.train()` at the start of every epoch.

Source
    PyTorch documentation of `nn.Module.train`.
"""

from __future__ import annotations

from valgap.checks.model.weights_not_loaded import held_in_eval
from valgap.checks.shared.progress import backbone_trained
from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, NotApplicable, RunRecord

MODE_SHARE = 0.5
UNMEASURED_POINTS = 2.0
# BatchNorm that never follows its layers lets the weights run away.
MOST_POINTS = 70.0
TRAINED_SHARE = 0.2


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Compare the mode of the first training pass with the later ones of the same model."""
    last = case.run.last_train
    if last is None:
        return NotApplicable("a training pass")
    passes = [p for p in case.run.of_phase("train") if p.model == last.model]
    next_mode = case.run.shortened.next_mode if case.run.shortened is not None else None
    if len(passes) < 2 and next_mode is None:
        return NotApplicable("two training passes of one model")
    first = passes[0].modes
    if first.batchnorm_layers == 0 and first.dropout_layers == 0:
        return Clear("the model has no BatchNorm and no active Dropout: its mode makes no difference")
    active = max(first.batchnorm_training, first.dropout_training)
    flags = [p.modes.training_flag for p in passes[1:]] + ([next_mode] if next_mode is not None else [])
    late = [f for f in flags if f < MODE_SHARE]
    facts = (
        Evidence("later training passes in eval mode", len(late), 0, "passes", len(flags)),
        Evidence("layers in training mode in the first pass", active, None),
    )
    if never_in_train_mode(case.run):
        return Finding(
            summary="a network that began at random never trains in train mode: its BatchNorm knows no statistics of any data",
            severity_points=UNMEASURED_POINTS,
            confidence=0.7,
            evidence=(*facts, Evidence("cost (no re-run): assumed", UNMEASURED_POINTS, 0.0, "points")),
            remedy="call model.train() at the start of every training epoch",
        )
    if first.training_flag < MODE_SHARE or active < MODE_SHARE or not late:
        return Clear("the mode of training stayed as it began", facts)
    return Finding(
        summary=f"{len(late)} of {len(flags)} later training epochs ran in eval mode",
        severity_points=UNMEASURED_POINTS,
        confidence=0.9,
        evidence=(*facts, Evidence("cost (no re-run): assumed", UNMEASURED_POINTS, 0.0, "points")),
        remedy="call model.train() at the start of every training epoch",
        most_points=MOST_POINTS,
    )


def never_in_train_mode(run: RunRecord) -> bool:
    """Whether BatchNorm keeps the statistics 0 and 1 that it began with; published networks lack their weights then."""
    model = run.trained_model
    if model is None or model.pretrained is not False or model.expected_size is not None:
        return False
    return backbone_trained(run) >= TRAINED_SHARE and held_in_eval(run)


def treat(case: Case, finding: Finding) -> Intervention:
    """The model in train mode while it trains."""
    return Intervention("train_mode", {"phase": "train"})


CHECK = Check(code="EVA502", name="eval_mode_at_training", stage="forward", detect=detect, doc=__doc__ or "", treat=treat)
