"""The learning rate is so low that training barely moves.

What it looks for
    Where the trained head could be trained again on its features: the same at ten times the rate, or with Adam at 1e-3.
    Elsewhere: tiny updates together with a probe on the same features that does clearly better than the run.

Why it hurts validation
    The run ends long before it has arrived.

What else looks like this
    Too few epochs at a sound rate (TRN403). Plain SGD without momentum, which needs ten times the rate (TRN411). A schedule
    that decays at once (TRN414). Accuracy that a probe does not reach either is limited by the features, not by the rate.

Remedy
    Ten times the rate. Usual for a new head: Adam 1e-3, SGD with momentum 1e-2; for pretrained layers a tenth of that.

Source
    Bengio 2012, "Practical recommendations for gradient-based training", section 3.1.
"""

from __future__ import annotations

from valgap.checks.progress import (
    NO_TORCH_OPTIMIZER,
    Replay,
    head_rate,
    own_updates,
    plain_sgd,
    replay,
    shortfall,
    update_ratio,
    usual_rate,
)
from valgap.checks.wrong_schedule import SMALL_SHARE, small_share
from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, NotApplicable, RunRecord

# Sound controls of benchmarks/faults.py gain at most 5 points by these, with p-values of 0.26 and more.
NOTABLE_POINTS, P_VALUE = 6.0, 0.02
# Sound fine-tuning moves its weights by 1e-4 and more a step.
COLD_RATIO = 2e-5


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Ask the replay at ten times the rate; without one, the size of the updates."""
    run = case.run
    trained = run.of_phase("train")
    if not sum(p.optimizer_steps for p in trained):
        return NotApplicable("optimizer steps")
    if own_updates(run):
        return NotApplicable(NO_TORCH_OPTIMIZER)
    if small_share(run) > SMALL_SHARE:
        return Clear("the rate is sound at first and decays at once (TRN414)")
    ratio, rate, usual = update_ratio(trained), head_rate(run), usual_rate(run)
    facts = [
        Evidence("highest learning rate", rate, f"about {usual:g}"),
        Evidence("size of an update over that of the weights (median)", ratio, "above 1e-4"),
    ]
    again, gap = max_gain(run), shortfall(run)
    if gap is not None:
        facts.append(gap.evidence())
    if again is not None:
        facts.insert(0, again.evidence("at ten times the rate" if again.name == "rate_x10" else "with Adam at 1e-3"))
        if 100 * again.gain >= NOTABLE_POINTS and again.p_value < P_VALUE:
            low = rate < 0.5 * usual
            confidence = 0.45 if plain_sgd(run) else 0.85 if low else 0.4
            return _finding(rate, max(100 * again.gain, 100 * gap.value if gap is not None else 0.0), confidence, facts)
    if ratio < COLD_RATIO and gap is not None and gap.low > 0:
        return _finding(rate, 100 * gap.value, 0.45 if plain_sgd(run) else 0.65, facts)
    return Clear("nothing speaks for a rate that is too low", tuple(facts))


def max_gain(run: RunRecord) -> Replay | None:
    """The better of the replays at ten times the rate and with Adam at its usual rate; None where there is none."""
    found = [r for r in (replay(run, "rate_x10"), replay(run, "fitting")) if r is not None]
    return max(found, key=lambda r: r.gain, default=None)


def _finding(rate: float, points: float, confidence: float, facts: list[Evidence]) -> Finding:
    return Finding(
        summary=f"a learning rate of {rate:.2g} barely moves the weights",
        severity_points=max(0.0, points),
        confidence=confidence,
        evidence=tuple(facts),
        remedy="multiply the learning rate by ten (and once more if it still crawls)",
    )


def treat(case: Case, finding: Finding) -> Intervention:
    """Ten times every rate."""
    return Intervention("scale_rate", {"factor": 10.0, "phase": "train"})


CHECK = Check(code="TRN402", name="learning_rate_too_low", detect=detect, doc=__doc__ or "", treat=treat)
