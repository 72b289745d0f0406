"""Validation batches train the model.

What it looks for
    Two kinds of passes that both call `backward` and step in every epoch, over different samples, of which one is not
    shuffled or runs in eval mode: that one is a validation with steps. And BatchNorm statistics that move in a pass without
    backward.

Why it hurts validation
    The model has then learned the answers; the result says nothing about new images.

What else looks like this
    Training on two data sets in turn: both are shuffled then. Validation in training mode moves only BatchNorm; that is
    EVA501, which is named first.

Remedy
    No `backward` and no `step` in the validation loop; `torch.no_grad()` and `model.eval()` around it.

Source
    robustdg issue 30; PyTorch documentation of inference mode.
"""

from __future__ import annotations

import numpy as np

from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, NotApplicable, Pass, RunRecord, Untreatable

UNMEASURED_POINTS = -5.0


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Look for a second kind of training pass that is a validation, then for BatchNorm moved by validation."""
    run = case.run
    train = run.of_phase("train")
    if not train:
        return NotApplicable("a training pass")
    stepping = stepping_validation(run)
    if stepping:
        steps = sum(p.optimizer_steps for p in stepping)
        return Finding(
            summary="the optimizer steps on validation batches",
            severity_points=UNMEASURED_POINTS,
            confidence=0.9,
            evidence=(
                Evidence("optimizer steps on validation batches", steps, 0, "steps", len(stepping)),
                Evidence("by how much the result is too good: assumed", UNMEASURED_POINTS, 0.0, "points"),
            ),
            remedy="wrap validation in torch.no_grad() and take backward() and step() out of it",
        )
    moved = [p.index for p in run.of_phase("validation") if statistics_moved(run, p)]
    facts = (Evidence("validation passes that moved BatchNorm statistics", len(moved), 0, "passes"),)
    if not run.of_phase("validation"):
        return NotApplicable("a validation pass")
    if not moved:
        return Clear("validation changed nothing in the model", facts)
    return Finding(
        summary="validation moves the BatchNorm statistics",
        severity_points=0.0,
        confidence=0.45,
        evidence=facts,
        remedy="call model.eval() before validating",
    )


def stepping_validation(run: RunRecord) -> list[Pass]:
    """Training passes that are a validation with optimizer steps."""
    train = run.of_phase("train")
    return [p for p in train if p.optimizer_steps and looks_like_validation(run, p, train)]


def looks_like_validation(run: RunRecord, one: Pass, train: tuple[Pass, ...]) -> bool:
    """Whether a pass with steps is the unshuffled or eval-mode partner of a shuffled training pass."""
    partners = [p for p in train if p.dataset != one.dataset and p.model == one.model and p.optimizer_steps]
    if not partners or one.index < partners[0].index:
        return False
    other = partners[-1]
    if _overlap(one, other) > 0:
        return False
    loaders = run.loaders.get(one.loader), run.loaders.get(other.loader)
    unshuffled = loaders[0] is not None and loaders[0].shuffled is False
    partner_shuffled = loaders[1] is not None and loaders[1].shuffled is True
    eval_mode = one.modes.training_flag < 0.5 <= other.modes.training_flag
    alternating = len([p for p in train if p.dataset == one.dataset]) >= min(2, len(partners))
    return alternating and ((unshuffled and partner_shuffled) or eval_mode)


def _overlap(a: Pass, b: Pass) -> float:
    ids = a.samples.sample[a.samples.sample >= 0]
    return float(np.isin(ids, b.samples.sample).mean()) if len(ids) else 0.0


def statistics_moved(run: RunRecord, one: Pass) -> bool:
    """Whether buffers of BatchNorm differ between the end of the pass before and the end of this one."""
    before = [p for p in run.passes if p.index < one.index and p.model == one.model and p.state >= 0]
    model = run.models.get(one.model)
    if not before or one.state < 0 or model is None:
        return False
    first, last = run.states[before[-1].state], run.states[one.state]
    if len(first.norms) != len(last.norms) or len(last.norms) != len(model.tensor_names):
        return False
    statistics = np.array([n.endswith(("running_mean", "running_var")) for n in model.tensor_names], bool)
    parameters = model.is_parameter
    moved = first.moved(last)
    # Other weights (a restored best epoch) move parameters too, and explain the buffers.
    return bool(moved[statistics].any() and not moved[parameters].any())


def treat(case: Case, finding: Finding) -> Intervention | Untreatable:
    """No optimizer step on validation batches."""
    train = case.run.of_phase("train")
    datasets = sorted({p.dataset for p in train if p.optimizer_steps and looks_like_validation(case.run, p, train)})
    if not datasets:
        return Untreatable("only BatchNorm statistics move")
    return Intervention("no_step", {"phase": "validation", "datasets": datasets})


CHECK = Check(code="TRN412", name="training_on_validation", stage="draw", detect=detect, doc=__doc__ or "", treat=treat)
