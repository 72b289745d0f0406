"""Plain SGD without momentum at a small rate: the optimizer does not fit the task.

What it looks for
    SGD with momentum 0, and, where the trained head could be trained again on its features, the same with momentum 0.9, or
    with Adam at its usual rate.

Why it hurts validation
    Without momentum each step moves a tenth as far in the long run; at rates made for momentum or Adam the run ends far from
    where the same features could take it.

What else looks like this
    Too low a rate with a sound optimizer (TRN402). Plain SGD at a large rate is slow in nothing.

Remedy
    `SGD(..., momentum=0.9)`, or Adam at 1e-3 for a new head.

Source
    Sutskever et al. 2013 (importance of momentum).
"""

from __future__ import annotations

from valgap.checks.shared.progress import (
    NO_TORCH_OPTIMIZER,
    far_below_usual,
    head_rate,
    plain_sgd,
    replay,
    shortfall,
    update_ratio,
    usual_rate,
)
from valgap.checks.shared.seen_part import few_steps, still_rises
from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, NotApplicable

NOTABLE_POINTS, P_VALUE = 5.0, 0.02
COLD_RATIO = 1e-3
# At the rate that is usual without momentum, slowness shows in many steps only; at a lower one in a few.
LEAST_STEPS, LEAST_STEPS_USUAL = 20, 500


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Ask the replays with momentum and with Adam."""
    run = case.run
    if run.own_updates:
        return NotApplicable(NO_TORCH_OPTIMIZER)
    if not run.optimizers or not run.of_phase("train"):
        return NotApplicable("an optimizer that stepped")
    kind = next(iter(run.optimizers.values())).kind
    facts = [Evidence("optimizer, highest learning rate", kind, f"{head_rate(run):.3g}")]
    if not plain_sgd(run):
        return Clear("the optimizer has momentum or adapts its steps", tuple(facts))
    if still_rises(run):
        return NotApplicable("the highest learning rate: it still rises at the end of what was seen")
    least = LEAST_STEPS_USUAL if head_rate(run) >= 0.5 * usual_rate(run) else LEAST_STEPS
    short = few_steps(run, least) if not far_below_usual(run) else None
    gap = shortfall(run)
    if gap is not None:
        facts.append(gap.evidence())
    found = [r for r in (replay(run, "momentum"), replay(run, "fitting")) if r is not None]
    for again, words in zip(found, ("with momentum 0.9", "with Adam at 1e-3"), strict=False):
        facts.insert(0, again.evidence(words))
    best = max(found, key=lambda r: r.gain, default=None)
    if best is not None and 100 * best.gain >= NOTABLE_POINTS and best.p_value < P_VALUE:
        return NotApplicable(short) if short is not None else _finding(head_rate(run), 100 * best.gain, 0.85, facts)
    ratio = update_ratio(run.of_phase("train"))
    facts.append(Evidence("size of an update over that of the weights (median)", ratio, "above 1e-3"))
    if not found and gap is not None and gap.low > 0 and ratio < COLD_RATIO:
        return NotApplicable(short) if short is not None else _finding(head_rate(run), 100 * gap.value, 0.6, facts)
    return Clear("plain SGD, but nothing shows that it is too slow here", tuple(facts))


def _finding(rate: float, points: float, confidence: float, facts: list[Evidence]) -> Finding:
    return Finding(
        summary=f"plain SGD without momentum at {rate:.2g} is too slow for this run",
        severity_points=max(0.0, points),
        confidence=confidence,
        evidence=tuple(facts),
        remedy="give SGD momentum=0.9 (or ten times the rate), or use Adam at 1e-3 for a new head",
    )


def treat(case: Case, finding: Finding) -> Intervention:
    """The same optimizer with momentum."""
    return Intervention("optimizer_settings", {"values": {"momentum": 0.9}, "phase": "train"})


CHECK = Check(
    code="TRN411",
    name="slow_optimizer",
    stage="update",
    detect=detect,
    doc=__doc__ or "",
    treat=treat,
    needs_whole_run="whether the training arrives without momentum",
)
