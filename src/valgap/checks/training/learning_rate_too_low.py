"""The learning rate is so low that training barely moves.

What it looks for
    Where the trained head could be trained again on its features: the same at ten times the rate, or with Adam at 1e-3,
    which must do what four times as many steps do not. Elsewhere: tiny updates together with a probe on the same features
    that does clearly better than the run. In a run of a few steps only a rate that would not arrive in ten thousand counts.

Why it hurts validation
    The run ends long before it has arrived.

What else looks like this
    Too few epochs at a sound rate (TRN403), or a trial of a few steps. A warm-up that has not ended: the highest rate is yet
    to come then, and nothing is said. Plain SGD without momentum, which needs ten times the rate (TRN411). A schedule
    that decays at once (TRN414). Accuracy that a probe does not reach either is limited by the features, not by the rate.

Remedy
    Ten times the rate. Usual for a new head: Adam 1e-3, SGD with momentum 1e-2; for pretrained layers a tenth of that.

Source
    Bengio 2012, "Practical recommendations for gradient-based training", section 3.1.
"""

from __future__ import annotations

from valgap.checks.shared.progress import (
    NO_TORCH_OPTIMIZER,
    Replay,
    far_below_usual,
    head_rate,
    plain_sgd,
    replay,
    shortfall,
    update_ratio,
    usual_rate,
)
from valgap.checks.shared.seen_part import few_steps, optimizer_steps, still_rises, unfinished
from valgap.checks.training.wrong_schedule import SMALL_SHARE, small_share
from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, NotApplicable, RunRecord

# Sound controls of benchmarks/faults.py gain at most 5 points by these, with p-values of 0.26 and more.
NOTABLE_POINTS, P_VALUE = 6.0, 0.02
# Sound fine-tuning moves its weights by 1e-4 and more a step.
COLD_RATIO = 2e-5
# Fewer steps than these leave any rate on its way; updates by COLD_RATIO need more of them to be seen to lead nowhere.
LEAST_STEPS, LEAST_STEPS_COLD = 20, 100
# Below so many steps, more of them may be what lacks; where they give this share of the gain, it is.
USUAL_STEPS, STEPS_SHARE = 500, 1 / 3


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Ask the replay at ten times the rate; without one, the size of the updates."""
    run = case.run
    trained, steps = run.of_phase("train"), optimizer_steps(run)
    if not steps:
        return NotApplicable("optimizer steps")
    if run.own_updates:
        return NotApplicable(NO_TORCH_OPTIMIZER)
    if still_rises(run):
        return NotApplicable("the highest learning rate: it still rises at the end of what was seen")
    if small_share(run) > SMALL_SHARE:
        return Clear("the rate is sound at first and decays at once")
    ratio, rate, usual = update_ratio(trained), head_rate(run), usual_rate(run)
    hopeless = far_below_usual(run)
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
            short, trial = few_steps(run, LEAST_STEPS), unfinished(run)
            if trial is not None and not hopeless and steps < USUAL_STEPS:
                return NotApplicable(f"a run that ends as planned: {trial}")
            if short is not None and not hopeless:
                return NotApplicable(short)
            longer = replay(run, "longer")
            if longer is not None and steps < USUAL_STEPS and longer.gain >= STEPS_SHARE * again.gain and not hopeless:
                facts.insert(1, longer.evidence("for four times as many steps"))
                return Clear("more steps at this rate do much of the same: the rate is not what it lacks", tuple(facts))
            low = rate < 0.5 * usual
            confidence = 0.45 if plain_sgd(run) else 0.85 if low else 0.4
            return _finding(rate, max(100 * again.gain, 100 * gap.value if gap is not None else 0.0), confidence, facts)
    if ratio < COLD_RATIO and gap is not None and gap.low > 0:
        short = few_steps(run, LEAST_STEPS_COLD)
        if short is not None and not hopeless:
            return NotApplicable(short)
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


CHECK = Check(
    code="TRN402",
    name="learning_rate_too_low",
    stage="update",
    detect=detect,
    doc=__doc__ or "",
    treat=treat,
    needs_whole_run="whether the training arrives at this rate",
)
