"""Validation scores an averaged copy that lags behind the trained model, or whose BatchNorm was never updated.

What it looks for
    A validated model that is not the trained one but has the same tensors, and the accuracy of both on the same
    validation images: the copy's as recorded, the trained model's from the closing measurements. Also how many of the
    copy's BatchNorm statistics never moved although its weights did.

Why it hurts validation
    An exponential average with decay .9999 needs thousands of steps before it resembles the model; a short run validates
    something close to the first weights. An average of weights (SWA) has other activations than any of its parts, so old
    BatchNorm statistics do not fit it.

What else looks like this
    A trial of a long recipe ends before any average has caught up: where the run was seen to end before its own plan,
    nothing is said. A copy that lags a little in the first epochs and then overtakes is as it should be: only the last
    epoch counts here.

Remedy
    Evaluate the trained model, or lower the decay (a warm-up such as min(decay, (1 + step) / (10 + step))); after SWA
    call `torch.optim.swa_utils.update_bn`; average the buffers as well (`use_buffers=True`).

Source
    VMamba issue 263 (decay too slow for a small data set); keras-stochastic-weight-averaging issue 4 (BatchNorm).
"""

from __future__ import annotations

import numpy as np

from valgap.checks.shared.rescored import over_recorded
from valgap.checks.shared.seen_part import unfinished
from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, ModelInfo, NotApplicable, Pass, RunRecord

P_VALUE = 0.01
# A copy worse by less than this may overtake with the next epoch.
NOTABLE_POINTS = 3.0
# From this share of statistics that never moved on, the copy is no average that lags: its layers do not fit its weights.
MOSTLY = 0.5
STATISTICS = ("running_mean", "running_var")


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Compare the validated copy with the trained model on the same images."""
    run = case.run
    val, trained = run.last_validation, run.trained_model
    if val is None or trained is None:
        return NotApplicable("a training pass and a labelled validation pass")
    copy = run.models.get(val.model)
    if copy is None or copy.id == trained.id or copy.trained or not alike(copy, trained):
        return Clear("validation scores the trained model itself")
    trial = unfinished(run)
    if trial is not None:
        return NotApplicable(f"a run that ends as planned, which an average can follow: {trial}")
    own = run.closing.rescores.get("val_trained") if run.closing is not None else None
    gain = over_recorded(run, val, own)
    if gain is None:
        return NotApplicable("the trained model's own score on the validation images (closing measurements)")
    still = stuck(run, copy)
    facts = (
        gain.evidence("val accuracy of the trained model minus that of the validated copy"),
        Evidence("BatchNorm statistics of the copy that never moved", still, 0.0, ""),
    )
    if gain.p_value >= P_VALUE or 100 * gain.value < NOTABLE_POINTS:
        return Clear("the averaged copy is not worse than the trained model", facts)
    return Finding(
        summary=f"validation scores an averaged copy; the trained model itself reaches {own.accuracy if own else 0:.1%}",
        severity_points=100 * gain.value,
        confidence=0.95,
        evidence=facts,
        remedy="evaluate the trained model, or shorten the average (lower decay, warm-up) and update the copy's BatchNorm",
        stage="forward" if still >= MOSTLY else None,
    )


def alike(copy: ModelInfo, trained: ModelInfo) -> bool:
    """Whether the copy's parameters are those of the trained model, whatever wraps it."""
    own, other = (sorted(m.numel[m.is_parameter].tolist()) for m in (copy, trained))
    return own == other


def stuck(run: RunRecord, copy: ModelInfo) -> float:
    """Share of the copy's running statistics that are as they were; nan where that is not known.

    As they were at its first validation, or, of a copy that was validated once, as the trained model began with.
    """
    ends = [run.states[p.state] for p in passes_of(run, copy) if 0 <= p.state < len(run.states)]
    named = np.array([n.endswith(STATISTICS) for n in copy.tensor_names], bool)
    if not ends or not named.any() or len(ends[-1].norms) != len(named):
        return float("nan")
    if len(ends) > 1:
        return float((~ends[0].moved(ends[-1]))[named].mean())
    model = run.trained_model
    begun = next((s for s in run.states if model is not None and s.model == model.id and s.moment == "start"), None)
    if model is None or begun is None or len(begun.norms) != len(model.tensor_names):
        return float("nan")
    first = {n: (begun.sums[i], begun.norms[i]) for i, n in enumerate(model.tensor_names) if n.endswith(STATISTICS)}
    still = [
        any(first.get(n.removeprefix(wrapped)) == (ends[-1].sums[i], ends[-1].norms[i]) for wrapped in ("", "module."))
        for i, n in enumerate(copy.tensor_names)
        if named[i]
    ]
    return float(np.mean(still))


def passes_of(run: RunRecord, model: ModelInfo) -> list[Pass]:
    """The passes of one model."""
    return [p for p in run.passes if p.model == model.id]


def treat(case: Case, finding: Finding) -> Intervention:
    """The trained model called in place of its copy."""
    return Intervention("evaluate_trained", {"phase": "both"})


CHECK = Check(
    code="MOD311",
    name="stale_averaged_model",
    stage="choose",
    detect=detect,
    doc=__doc__ or "",
    treat=treat,
    needs_whole_run="what the averaged model has become",
)
