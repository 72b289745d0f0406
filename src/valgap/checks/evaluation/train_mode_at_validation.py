"""The model validates in training mode.

What it looks for
    Batches of a validation pass that went through a model whose BatchNorm layers used the statistics of the batch, or
    whose Dropout layers were active; where a head validates on features that were made once, of the pass that made them.
    The record holds every module's mode at every call, so this is a fact, not a guess.

Why it hurts validation
    BatchNorm then normalises each image by its neighbours in the batch, so a prediction depends on which other
    images came along, and Dropout switches features off at random. In many scripts the running statistics move as well.

What else looks like this
    BatchNorm drift (MOD302) also makes train and eval mode disagree, but there validation runs in eval mode. Monte Carlo
    dropout keeps Dropout active on purpose.

Remedy
    Call `model.eval()` before validating and `model.train()` before the next training epoch.

Source
    PyTorch documentation of `nn.Module.eval`; docs/cases.md.
"""

from __future__ import annotations

from valgap.checks.shared.rescored import over_recorded
from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, NotApplicable, Pass, RunRecord, Untreatable

# A fact of the record needs no calibrated threshold: half of the batches separates "the phase was switched" from a
# single look in another mode.
MODE_SHARE = 0.5
# Without a re-score the loss is not known; this is what the planted case costs on clothing_mini at least.
UNMEASURED_POINTS = 3.0


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Compare the modes at validation with eval mode, and re-scored validation with the recorded one."""
    last = case.run.last_validation
    if last is None:
        return NotApplicable("a validation pass")
    made = features_of(case.run, last)
    if made is not None and max(active(made)) >= MODE_SHARE:
        return _of_features(made)
    modes = last.modes
    if modes.batchnorm_layers == 0 and modes.dropout_layers == 0:
        return Clear("the model has no BatchNorm and no active Dropout: its mode makes no difference")
    norm, drop = active(last)
    facts: tuple[Evidence, ...] = (
        Evidence("BatchNorm layers in training mode at validation", norm, 0.0, "", modes.batchnorm_layers),
        Evidence("active Dropout layers at validation", drop, 0.0, "", modes.dropout_layers),
    )
    if max(norm, drop) < MODE_SHARE:
        return Clear("validation ran in eval mode", facts)
    gain = over_recorded(case.run, last, case.run.closing.rescores.get("val_eval") if case.run.closing else None)
    if gain is None:
        cost = Evidence("cost (not re-scored): assumed", UNMEASURED_POINTS, 0.0, "points")
    else:
        cost = gain.evidence("validation accuracy in eval mode minus as recorded")
    moved = case.run.closing.numbers.get("batch_mate_change") if case.run.closing else None
    if moved is not None:
        n = int(case.run.closing.numbers.get("batch_mate_n", 0)) if case.run.closing else 0
        name = "change of the logits among other batch mates, in units of their spread"
        facts = (*facts, Evidence(name, round(moved, 4), 0.0, "", n))
    if modes.training_flag < MODE_SHARE and norm >= MODE_SHARE:
        return Finding(
            summary="BatchNorm normalises validation images by their batch although the model is in eval mode",
            severity_points=100 * gain.value if gain is not None else UNMEASURED_POINTS,
            confidence=0.9,
            evidence=(cost, *facts),
            remedy="build the BatchNorm layers with track_running_stats=True, and leave them in eval mode at validation",
        )
    return Finding(
        summary="validation runs in training mode (model.eval() is missing)",
        severity_points=100 * gain.value if gain is not None else UNMEASURED_POINTS,
        confidence=0.98 if norm >= MODE_SHARE else 0.9,
        evidence=(cost, *facts),
        remedy="call model.eval() before the validation loop, and model.train() before the next training epoch",
    )


def active(one: Pass) -> tuple[float, float]:
    """Shares of a pass's BatchNorm layers in training mode, and of its Dropout layers that drop."""
    modes = one.modes
    return (
        modes.batchnorm_training if modes.batchnorm_layers else 0.0,
        modes.dropout_training if modes.dropout_layers else 0.0,
    )


def features_of(run: RunRecord, last: Pass) -> Pass | None:
    """The pass over images that made the features which a head validates on: before, of as many; None where there is none."""
    if last.inputs is not None:
        return None  # it validates on images
    for earlier in reversed(run.passes[: last.index]):
        images = earlier.inputs is not None and len(earlier.inputs.shape) == 3
        if images and earlier.phase == "other" and len(earlier.samples) == len(last.samples):
            return earlier
    return None


def _of_features(made: Pass) -> Finding:
    norm, drop = active(made)
    return Finding(
        summary="the features that validation is made of were computed in training mode (eval() is missing)",
        severity_points=UNMEASURED_POINTS,
        confidence=0.9,
        evidence=(
            Evidence("cost (not re-scored): assumed", UNMEASURED_POINTS, 0.0, "points"),
            Evidence("BatchNorm layers in training mode while features are made", norm, 0.0, "", made.modes.batchnorm_layers),
            Evidence("active Dropout layers while features are made", drop, 0.0, "", made.modes.dropout_layers),
        ),
        remedy="call eval() on the network before it makes the features, of training and of validation",
    )


def treat(case: Case, finding: Finding) -> Intervention | Untreatable:
    """The model in eval mode while it validates."""
    last = case.run.last_validation
    if last is not None and features_of(case.run, last) is not None:
        return Untreatable("the features are made before anything is trained")
    return Intervention("eval_mode", {"phase": "validation"})


CHECK = Check(code="EVA501", name="train_mode_at_validation", stage="forward", detect=detect, doc=__doc__ or "", treat=treat)
