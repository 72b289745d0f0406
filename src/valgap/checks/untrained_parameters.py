"""Parameters that should learn never move.

What it looks for
    Parameters that require a gradient and are in no optimizer, or that are in one and have the same value at the end as at
    the start; and training in which nothing moved at all (backward without step, or a step on nothing).

Why it hurts validation
    A new head that stays random makes every answer random; unfrozen layers that are missing from the optimizer waste the
    unfreezing.

What else looks like this
    Frozen layers do not require a gradient and are no fault. A single training step too small for float32 also moves nothing.

Remedy
    Build the optimizer after replacing the head, from all parameters that require a gradient.

Source
    PyTorch documentation of torch.optim; PyTorch forum, "parameters not updating".
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, ModelInfo, NotApplicable

# A few parameters are unused in many sound models (an auxiliary classifier, a position table): below this share of all
# trainable numbers, and when the head learns, nothing is claimed.
UNUSED_SHARE = 0.05
UNMEASURED_POINTS = 10.0


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Compare the first and the last snapshot of every trainable parameter."""
    run = case.run
    model, train = run.trained_model, run.last_train
    if model is None or train is None:
        return NotApplicable("a training pass")
    states = [s for s in run.states if s.model == model.id and len(s.norms) == len(model.tensor_names)]
    if len(states) < 2:
        return NotApplicable("snapshots of the model at the start and after a pass")
    wanted = model.is_parameter & model.requires_grad
    if not wanted.any():
        return NotApplicable("a parameter that requires a gradient")
    moved = states[0].moved(states[-1])
    steps = sum(p.optimizer_steps for p in run.of_phase("train"))
    stuck = wanted & ~moved
    facts = (
        Evidence("trainable parameters (numbers) that never moved", share(model, stuck, wanted), 0.0, "", int(wanted.sum())),
        Evidence("optimizer steps", steps, None, "steps"),
    )
    if not moved[wanted].any():
        return _finding("no trainable parameter ever moved", 0.98, facts, model, stuck)
    outside = stuck & ~model.in_optimizer
    if outside.any() and (share(model, outside, wanted) > UNUSED_SHARE or outside[last_layer(model)].any()):
        return _finding(f"{int(outside.sum())} trainable parameters are in no optimizer", 0.95, facts, model, outside)
    idle = stuck & model.in_optimizer & ~model.got_gradient
    if share(model, idle, wanted) > UNUSED_SHARE or idle[last_layer(model)].any():
        return _finding(f"{int(idle.sum())} parameters in the optimizer never got a gradient", 0.7, facts, model, idle)
    return Clear("every parameter that should learn has moved", facts)


def share(model: ModelInfo, part: npt.NDArray[np.bool_], whole: npt.NDArray[np.bool_]) -> float:
    """Numbers in ``part`` over numbers in ``whole``, 0..1."""
    return float(model.numel[part].sum() / max(1, model.numel[whole].sum()))


def last_layer(model: ModelInfo) -> npt.NDArray[np.bool_]:
    """The parameters of the last module that has any, shape (T,)."""
    owners = np.array([n.rpartition(".")[0] for n in model.tensor_names])
    places = np.flatnonzero(model.is_parameter)
    return np.asarray((owners == owners[places[-1]]) & model.is_parameter)


def _finding(
    summary: str,
    confidence: float,
    facts: tuple[Evidence, ...],
    model: ModelInfo,
    which: npt.NDArray[np.bool_],
) -> Finding:
    return Finding(
        summary=summary,
        severity_points=UNMEASURED_POINTS,
        confidence=confidence,
        evidence=(*facts, Evidence("cost (no re-run): assumed", UNMEASURED_POINTS, 0.0, "points")),
        remedy="build the optimizer after the model is complete, from every parameter that requires a gradient; call step()",
        subjects=tuple(np.array(model.tensor_names)[which].tolist()),
    )


def treat(case: Case, finding: Finding) -> Intervention:
    """The trainable parameters that no optimizer holds join one."""
    return Intervention("add_missing_parameters")


CHECK = Check(code="MOD303", name="untrained_parameters", detect=detect, doc=__doc__ or "", treat=treat)
