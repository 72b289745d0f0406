"""Frozen layers whose BatchNorm statistics still move.

What it looks for
    BatchNorm layers whose own weights did not move (`requires_grad = False`, `no_grad` in `forward`, left out of the optimizer),
    nor those of the layer before them, while their running mean and variance did. The record holds a snapshot of every tensor at
    the start and after each pass.

Why it hurts validation
    `requires_grad = False` stops gradients, not BatchNorm. In training mode each batch still pulls the running statistics
    towards the (augmented) training images, while the frozen weights around them expect the statistics of the pretraining
    data. Validation, in eval mode, then runs the network with statistics that fit neither; the features get worse.

What else looks like this
    Full fine-tuning moves the statistics on purpose, together with the weights; so does training all but the scales and shifts
    of BatchNorm. Where the last blocks learn too they get used to what the moved statistics give them: a hint, and a re-run
    decides. Missing eval mode at validation (EVA501) moves them as well, and is named on its own.

Remedy
    Keep frozen BatchNorm layers in eval mode: after each `model.train()`, call `.eval()` on them (or on the whole frozen
    backbone), or override `train()` of the model so that it survives.

Source
    PyTorch documentation of `nn.BatchNorm2d`; lightly issue 1438; keras-resnet issue 46.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from valgap.checks.shared.freezing import forgotten
from valgap.stats import chance_above
from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, ModelInfo, NotApplicable, RunRecord, StateSnapshot

# Without the probe, the cost is not known. On clothing_mini it measured 10 points; half of that is claimed.
UNMEASURED_POINTS = 5.0
# That the statistics moved is a fact of the record; only its cost is uncertain: the confidence is that of a loss that is felt.
# Where no probe measured one it is a hint: sound trainings of the last blocks let them move as well. Where more than the head
# learns a probe measures none: later layers were trained on what moved statistics gave them, and it asks them about another.
CONFIDENCE = 0.95
UNMEASURED_CONFIDENCE = 0.45
FELT = 0.03


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Compare the statistics of frozen BatchNorm layers at the start and at the end."""
    run = case.run
    model = run.trained_model
    if model is None:
        return NotApplicable("a training pass")
    states = [s for s in run.states if s.model == model.id and len(s.norms) == len(model.tensor_names)]
    if len(states) < 2 or states[0].moment != "start":
        return NotApplicable("snapshots of the model at the start and after a pass")
    buffers = statistics_of(model)
    if not buffers.any():
        return Clear("the model has no BatchNorm statistics")
    frozen = buffers & frozen_layers(model, states[0], states[-1])
    late = {n.rpartition(".")[0] for n in np.array(model.tensor_names)[forgotten(model)]}
    frozen &= [n.rpartition(".")[0] not in late for n in model.tensor_names]  # they were to learn, statistics and all
    if not frozen.any():
        return Clear("no BatchNorm layer is frozen: its statistics move together with its weights")
    moved = frozen & states[0].moved(states[-1])
    share = float(moved.sum() / frozen.sum())
    facts = Evidence("frozen BatchNorm statistics that moved", share, 0.0, "", int(frozen.sum()))
    if not moved.any():
        return Clear("the statistics of frozen BatchNorm layers stayed as they were", (facts,))
    if all(p.modes.batchnorm_training == 0 for p in run.of_phase("train")):
        return Clear("training holds BatchNorm in eval mode; only validation moved its statistics", (facts,))
    points, probe, confidence = cost(run)
    if later_layers_learn(model, states[0], states[-1]):
        confidence = min(confidence, UNMEASURED_CONFIDENCE)
    change = relative_change(states[0], states[-1], moved)
    return Finding(
        summary=f"{int(moved.sum())} statistics of frozen BatchNorm layers moved during training",
        severity_points=points,
        confidence=confidence,
        evidence=(*probe, facts, Evidence("median change of their norm", change, 0.0, "of the first value")),
        remedy=(
            "hold the frozen BatchNorm layers in eval mode: after every model.train(), call .eval() on each frozen "
            "BatchNorm module (or on the frozen backbone)"
        ),
        subjects=tuple(np.array(model.tensor_names)[moved].tolist()),
    )


def statistics_of(model: ModelInfo) -> npt.NDArray[np.bool_]:
    """Which tensors are running statistics of BatchNorm layers, shape (T,)."""
    named = [n.endswith(("running_mean", "running_var")) for n in model.tensor_names]
    norm = ["batchnorm" in kind.lower() or "norm" in kind.lower() for kind in model.layer_kind]
    both: npt.NDArray[np.bool_] = np.array(named, bool) & np.array(norm, bool) & ~model.is_parameter
    return both


def frozen_layers(model: ModelInfo, first: StateSnapshot, last: StateSnapshot) -> npt.NDArray[np.bool_]:
    """Which tensors belong to a module whose own parameters never moved, by whatever means they are held, shape (T,).

    A normalisation layer whose scale and shift are held while the layer before it learns is none: its statistics have to follow.
    """
    owners = [n.rpartition(".")[0] for n in model.tensor_names]
    alive = {o for o, p, m in zip(owners, model.is_parameter, first.moved(last), strict=True) if p and m}
    has_weights = {o for o, p in zip(owners, model.is_parameter, strict=True) if p}
    fed_by_learning: set[str] = set()
    before = ""  # the last layer with weights that is no normalisation
    for owner, kind, is_parameter in zip(owners, model.layer_kind, model.is_parameter, strict=True):
        if "norm" in kind.lower():
            fed_by_learning |= {owner} if before in alive else set()
        elif is_parameter:
            before = owner
    return np.array([o in has_weights and o not in alive | fed_by_learning for o in owners], bool)


def later_layers_learn(model: ModelInfo, first: StateSnapshot, last: StateSnapshot) -> bool:
    """Whether more than a head moved: a convolution or a normalisation."""
    kinds = np.array(["conv" in kind.lower() or "norm" in kind.lower() for kind in model.layer_kind], bool)
    return bool((kinds & model.is_parameter & first.moved(last)).any())


def cost(run: RunRecord) -> tuple[float, tuple[Evidence, ...], float]:
    """(points, evidence, confidence) from the probes on the features before and after."""
    numbers = run.closing.numbers if run.closing else {}
    if "probe_initial" not in numbers or "probe_final" not in numbers:
        unknown = Evidence("cost (the probe on the features was not made): assumed", UNMEASURED_POINTS, 0.0, "points")
        return UNMEASURED_POINTS, (unknown,), UNMEASURED_CONFIDENCE
    before, after = numbers["probe_initial"], numbers["probe_final"]
    n = int(numbers.get("probe_n", 0))
    loss = before - after
    error = numbers.get("probe_difference_se", float(np.sqrt(0.25 / max(1, n))))
    evidence = Evidence(
        "val accuracy of a linear probe on the features, last against first statistics",
        after,
        before,
        "",
        n,
        after - 1.96 * error,
        after + 1.96 * error,
    )
    return max(0.0, 100 * loss), (evidence,), CONFIDENCE * chance_above(loss, FELT, error)


def relative_change(first: StateSnapshot, last: StateSnapshot, moved: npt.NDArray[np.bool_]) -> float:
    """Median relative change of the norms of the moved tensors."""
    old, new = first.norms[moved], last.norms[moved]
    return float(np.median(np.abs(new - old) / np.maximum(old, 1e-12)))


def treat(case: Case, finding: Finding) -> Intervention:
    """Frozen BatchNorm layers held in eval mode while the model trains."""
    model = case.run.trained_model
    named = set(finding.subjects)
    if model is None:
        return Intervention("hold_batchnorm", {"phase": "train", "only_frozen": True})
    every = statistics_of(model)
    owners = {n.rpartition(".")[0] for n in named}
    flagged = [not g for n, p, g in zip(model.tensor_names, model.is_parameter, model.requires_grad, strict=True)
               if p and n.rpartition(".")[0] in owners]  # fmt: skip
    whole = named >= set(np.array(model.tensor_names)[every].tolist())
    # Layers held by other means than their flag are told from the rest only where all of them are held.
    return Intervention("hold_batchnorm", {"phase": "train", "only_frozen": all(flagged) or not whole})


CHECK = Check(code="MOD302", name="batchnorm_drift", stage="forward", detect=detect, doc=__doc__ or "", treat=treat)
