"""Weight decay pulls the weights to zero faster than the loss can hold them.

What it looks for
    Where the trained head could be trained again on its features: the same with a tenth of the decay. Elsewhere: the norms of
    the weights, which shrink about as fast as rate x decay alone would make them, and a probe on the same features that does
    better.

Why it hurts validation
    The network ends close to zero weights and answers nearly the same for every image.

What else looks like this
    A low rate (TRN402) and Dropout (MOD309) underfit with weights that keep their size.

Remedy
    A tenth of the decay or less: 1e-4 to 5e-4 for SGD, 1e-2 for AdamW; none on BatchNorm and biases.

Source
    Loshchilov and Hutter 2019 (AdamW); He et al. 2016 (1e-4).
"""

from __future__ import annotations

import numpy as np

from valgap.checks.shared.progress import NO_TORCH_OPTIMIZER, replay, shortfall
from valgap.checks.shared.seen_part import highest_rates
from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, NotApplicable, RunRecord

NOTABLE_POINTS, P_VALUE = 4.0, 0.02
# Sound fine-tuning changes the norm of pretrained weights by a few per cent.
SHRUNK = 0.85
USUAL = {"AdamW": 0.05}
USUAL_OTHER = 1e-3


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Ask the replay with less decay; without one, whether the weights shrank as decay alone would make them."""
    run = case.run
    if run.own_updates:
        return NotApplicable(NO_TORCH_OPTIMIZER)
    if not run.optimizers or not run.of_phase("train"):
        return NotApplicable("an optimizer that stepped")
    decay, kind = strongest(run)
    facts = [Evidence("strongest weight decay", decay, f"at most {USUAL.get(kind, USUAL_OTHER):g} for {kind}")]
    if decay <= USUAL.get(kind, USUAL_OTHER):
        return Clear("weight decay is not above the usual", tuple(facts))
    again, gap = replay(run, "decay_x0.1"), shortfall(run)
    if again is not None:
        facts.insert(0, again.evidence("with a tenth of the decay"))
        if 100 * again.gain >= NOTABLE_POINTS and again.p_value < P_VALUE:
            return _finding(decay, 100 * again.gain, 0.85, facts)
    facts.append(Evidence("norm of the trained weights, end over start (median)", kept_norm(run), "0.95 to 1.5"))
    if gap is not None:
        facts.append(gap.evidence())
    if shrinks(run) and gap is not None and gap.low > 0:
        return _finding(decay, 100 * gap.value, 0.7, facts)
    if shrinks(run):
        return _finding(decay, 0.0, 0.35, facts)
    return Clear("weight decay does not show in the weights or in what they could reach", tuple(facts))


def strongest(run: RunRecord) -> tuple[float, str]:
    """(largest weight decay of any group, class of that optimizer)."""
    found = [(float(g["weight_decay"] or 0.0), o.kind) for o in run.optimizers.values() for g in o.groups if "weight_decay" in g]
    return max(found, default=(0.0, next(iter(run.optimizers.values())).kind))


def shrinks(run: RunRecord) -> bool:
    """Whether trained weights lost much of their norm, and weight decay alone would make them."""
    expected = float(np.exp(-strongest(run)[0] * highest_rates(run).sum()))
    return kept_norm(run) < SHRUNK and expected < SHRUNK


def kept_norm(run: RunRecord) -> float:
    """Median over trained weight matrices of their norm at the end over that at the start; nan without snapshots."""
    model = run.trained_model
    states = [s for s in run.states if model is not None and s.model == model.id and len(s.norms) == len(model.tensor_names)]
    if model is None or len(states) < 2:
        return float("nan")
    wanted = model.is_parameter & model.in_optimizer & np.array([n.endswith("weight") for n in model.tensor_names], bool)
    first, last = states[0].norms[wanted], states[-1].norms[wanted]
    good = first > 0
    return float(np.median(last[good] / first[good])) if good.any() else float("nan")


def _finding(decay: float, points: float, confidence: float, facts: list[Evidence]) -> Finding:
    return Finding(
        summary=f"a weight decay of {decay:.2g} keeps the weights from growing to what the task needs",
        severity_points=max(0.0, points),
        confidence=confidence,
        evidence=tuple(facts),
        remedy="a tenth of the weight decay or less (1e-4 to 5e-4 for SGD and Adam, 1e-2 for AdamW)",
    )


def treat(case: Case, finding: Finding) -> Intervention:
    """A tenth of the decay."""
    decay = strongest(case.run)[0] if case.run.optimizers else 0.0
    return Intervention("optimizer_settings", {"values": {"weight_decay": 0.1 * decay}, "phase": "train"})


CHECK = Check(
    code="TRN406",
    name="excessive_weight_decay",
    stage="update",
    detect=detect,
    doc=__doc__ or "",
    treat=treat,
    needs_whole_run="what the decay does over all steps",
)
