"""Parameters that should learn never move.

What it looks for
    Layers at work in the model that have the same values at the end as at the start, though they are as they were made (no
    weights were loaded into them), or though layers before and after them learn. Also training in which nothing moved at all
    (backward without step, or a step on nothing), an optimizer that holds tensors which the model no longer has, or that was
    not told of layers which are to learn from a later epoch on.

Why it hurts validation
    A new head that stays random makes every answer random; a new layer that stays random garbles what comes before it.

What else looks like this
    Freezing on purpose, in whatever form: `requires_grad = False`, `no_grad` or `detach` in `forward`, a rate of 0, parameters
    left out of the optimizer. It follows the network's build: everything up to a point, all layers of one kind, all weights that
    were given. Then nothing is claimed. A single training step too small for float32 also moves nothing.

Remedy
    Build the optimizer after replacing the head, from all parameters that should learn. Keep lists and dicts of layers in
    `nn.ModuleList` and `nn.ModuleDict`.

Source
    PyTorch documentation of torch.optim; PyTorch forum, "parameters not updating".
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt

from valgap.checks.shared.freezing import UNUSED_SHARE, Holding, forgotten, holding, newness, norms, share
from valgap.checks.shared.progress import numbers_of, shortfall
from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, ModelInfo, NotApplicable, RunRecord, Untreatable

UNMEASURED_POINTS, MOST_POINTS = 10.0, 20.0  # the most: of a network nearly all of whose layers stay random
# Fewer may wait for the step of a first accumulation, or for a scaler that skips its first steps.
FEWEST_BACKWARDS = 11


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Compare the first and the last snapshot of every parameter at work."""
    run = case.run
    if run.trained_model is None or run.last_train is None:
        return NotApplicable("a training pass")
    if run.trained_model.strays:
        return _outside(run.trained_model)
    held = holding(run)
    if held is None:
        return NotApplicable("snapshots of the model at the start and after a pass")
    model, stuck = held.model, held.held
    wanted = held.weights & model.requires_grad
    if not wanted.any():
        return NotApplicable("a parameter that requires a gradient")
    facts = (
        Evidence(
            "parameters at work (numbers) that never moved", share(model, stuck, held.weights), 0.0, "", int(held.weights.sum())
        ),
        Evidence("optimizer steps", sum(p.optimizer_steps for p in run.of_phase("train")), None, "steps"),
    )
    if not held.moved[wanted].any():
        steps = sum(p.optimizer_steps for p in run.of_phase("train"))
        if not steps and sum(p.backwards for p in run.of_phase("train")) < FEWEST_BACKWARDS:
            return NotApplicable("an optimizer step: so few batches may wait for one (accumulation, a scaler that skips)")
        # Tensors that get gradients learn, whosever they are; held in vain, a copy of this model was given by mistake.
        if steps and not model.held_in_vain and not (model.in_optimizer | model.got_gradient).any():
            return NotApplicable("a training of this model: what the optimizer holds are tensors of no module that was called")
        return _finding(run, "no trainable parameter ever moved", 0.98, facts, stuck & wanted, held)
    outside = stuck & model.requires_grad & ~model.in_optimizer
    if model.held_in_vain and (share(model, outside, held.weights) > UNUSED_SHARE or outside[held.head].any()):
        vain = Evidence("tensors in the optimizer that no model has", model.held_in_vain, 0, "tensors")
        words = f"the optimizer holds {model.held_in_vain} tensors that no model has, and lacks {int(outside.sum())} of this one"
        return _finding(run, words, 0.95, (*facts, vain), outside, held)
    late = stuck & forgotten(model)
    if share(model, late, held.weights) > UNUSED_SHARE:
        words = f"{int(late.sum())} parameters that were frozen at first are to learn later, and no optimizer holds them"
        return _finding(run, words, 0.9, facts, late, held)
    if share(model, stuck, held.weights) <= UNUSED_SHARE and not stuck[held.head].any():
        return Clear("every parameter that should learn has moved", facts)
    return _never_learnt(run, held, facts) or _hole(run, held, facts) or Clear(_as_meant(held), facts)


def _outside(model: ModelInfo) -> Finding:
    """The finding on layers that work in the model's call and are no parts of it."""
    kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(model.strays).most_common())
    share = model.stray_numbers / (model.stray_numbers + int(model.numel[model.is_parameter].sum()))
    points = max(UNMEASURED_POINTS, MOST_POINTS * share)
    return Finding(
        summary=f"{len(model.strays)} layers work in the model and are no parts of it ({kinds}): they never learn",
        severity_points=points,
        confidence=0.95,
        evidence=(
            Evidence(
                "layers that get gradients, never move, and are not among the model's parameters", len(model.strays), 0, "layers"
            ),
            Evidence("share of all numbers at work that is in them", share, 0.0),
            Evidence("cost (no re-run): assumed", points, 0.0, "points"),
        ),
        remedy="keep layers in nn.ModuleList or nn.ModuleDict instead of a list or dict, so that model.parameters() has them",
    )


def _never_learnt(run: RunRecord, held: Holding, facts: tuple[Evidence, ...]) -> Finding | None:
    """New layers that stay as they were made."""
    model, head = held.model, held.head & held.held
    new = held.new & ~norms(model)
    unknown_head = head & (newness(model) == -1) & model.requires_grad
    if (head & new).any() or (unknown_head.any() and held.plan is None):
        sure = 0.95 if model.requires_grad[head].any() else 0.6
        return _finding(run, f"the last layer never learns: {held.how(head)}", sure, facts, head, held)
    if share(model, new & model.requires_grad, held.weights) <= UNUSED_SHARE:
        return None
    new &= model.requires_grad
    return _finding(run, f"{int(new.sum())} new parameters never learn: {held.how(new)}", 0.85, facts, new, held)


def _hole(run: RunRecord, held: Holding, facts: tuple[Evidence, ...]) -> Finding | None:
    """Layers that are left alone while others before them learn, without a plan that explains it."""
    model = held.model
    if held.plan is not None:
        return None
    going = np.flatnonzero(held.weights & held.moved & ~norms(model))
    after = np.arange(len(held.held)) > (going[0] if len(going) else 0)
    stuck = held.held & model.requires_grad & after & ~norms(model)
    if share(model, stuck, held.weights) <= UNUSED_SHARE and not stuck[held.head].any():
        return None
    words = f"{int(stuck.sum())} parameters are left alone amid layers that learn: {held.how(stuck)}"
    return _finding(run, words, 0.7, facts, stuck, held)


def _as_meant(held: Holding) -> str:
    if held.plan is None:
        return "what does not move is small, or frozen by name"
    return f"what does not move follows a plan: {held.plan} ({held.how(held.held)})"


def _finding(
    run: RunRecord, summary: str, confidence: float, facts: tuple[Evidence, ...], which: npt.NDArray[np.bool_], held: Holding
) -> Finding:
    lost = shortfall(run)
    if lost is not None:
        # What was to learn stayed as it was: of the features that it began with no less could have been made.
        first, cost = numbers_of(run).get("probe_initial", lost.probe), lost.evidence()
        if first > lost.probe:
            cost = Evidence(
                "val accuracy of a probe on the features at the start, against the run", first, lost.reached, "", lost.n
            )
        points = max(0.0, 100 * (max(first, lost.probe) - lost.reached))
    else:
        points, cost = UNMEASURED_POINTS, Evidence("cost (no re-run): assumed", UNMEASURED_POINTS, 0.0, "points")
    return Finding(
        summary=summary,
        severity_points=points,
        confidence=confidence,
        evidence=(*facts, cost),
        remedy="build the optimizer after the model is complete, from every parameter that requires a gradient; call step()",
        subjects=tuple(np.array(held.model.tensor_names)[which].tolist()),
    )


def treat(case: Case, finding: Finding) -> Intervention | Untreatable:
    """The trainable parameters that no optimizer holds join one."""
    model = case.run.trained_model
    if model is not None and model.strays:
        return Untreatable("layers outside of the model have no names in it")
    return Intervention("add_missing_parameters")


CHECK = Check(code="MOD303", name="untrained_parameters", stage="update", detect=detect, doc=__doc__ or "", treat=treat)
