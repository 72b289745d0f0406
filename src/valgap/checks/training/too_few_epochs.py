"""Training ends while validation is still improving.

What it looks for
    Where the trained head could be trained again on its features: the same for four times as many steps. Elsewhere a curve
    that still rises in its last epoch is a hint and no more: a curve alone does not say where it would have gone. A run that
    was seen to end before its own plan (a schedule that has not run out, a loop that breaks off) is a trial, and not judged.

Why it hurts validation
    The run is stopped on its way.

What else looks like this
    A rate that is too low (TRN402) and plain SGD (TRN411) also leave the run on its way; there a larger step helps as much as
    more of them. Judge the number of optimizer steps, not of epochs: 200 images in batches of 32 make 7 steps an epoch.

Remedy
    More epochs: 500 to 5,000 steps are usual for fine-tuning.

Source
    Kolesnikov et al. 2020 (BiT): 500 steps for the smallest data sets.
"""

from __future__ import annotations

from valgap.checks.shared.early_end import ended_early
from valgap.checks.shared.progress import course, head_rate, plain_sgd, replay, shortfall, usual_rate
from valgap.checks.shared.seen_part import epochs_argument, unfinished
from valgap.checks.training.learning_rate_too_high import diverged
from valgap.checks.training.wrong_schedule import SMALL_SHARE, small_share
from valgap.stats import paired_p_value
from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, NotApplicable, RunRecord, Untreatable

# Sound controls of benchmarks/faults.py (3 to 12 epochs) gain at most 6 points by this, with p-values of 0.12 and more.
NOTABLE_POINTS, P_VALUE = 10.0, 0.05
RISING_P = 0.05
USUAL_STEPS = 500
FACTOR = 3
# Nobody takes one or two epochs for a training: they are a trial.
TRIAL_EPOCHS = 2


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Ask the replay with more steps; without one, whether the last epoch still gained."""
    run = case.run
    trained = run.of_phase("train")
    steps = sum(p.optimizer_steps for p in trained)
    if not steps:
        return NotApplicable("optimizer steps")
    if small_share(run) > SMALL_SHARE:
        return Clear("the rate decays at once, and more epochs would not move anything")
    if diverged(run):
        return Clear("the training loss is far above that of a guess: more steps are not what it lacks")
    plan = unfinished(run)
    if plan is not None:
        return NotApplicable(f"a run that ends as planned: {plan}")
    ended = ended_early(run)
    if ended is not None:
        return NotApplicable(
            f"a run that used the epochs it was given: it stopped by itself after {len(trained)} of {ended.given}"
        )
    facts = [Evidence("optimizer steps", steps, f"{USUAL_STEPS} or more", "steps", len(trained))]
    again, gap = replay(run, "longer"), shortfall(run)
    if again is not None:
        facts.insert(0, again.evidence("for four times as many steps"))
        slow = head_rate(run) < 0.5 * usual_rate(run) or plain_sgd(run)
        if 100 * again.gain >= NOTABLE_POINTS and again.p_value < P_VALUE:
            trial = len(trained) <= TRIAL_EPOCHS
            return _finding(len(trained), steps, 100 * again.gain, 0.4 if slow or trial or steps > USUAL_STEPS else 0.75, facts)
    if rising(run, facts) and steps < USUAL_STEPS:
        return _finding(len(trained), steps, 100 * gap.value if gap is not None else 0.0, 0.3, facts)
    return Clear("nothing speaks for more epochs", tuple(facts))


def rising(run: RunRecord, facts: list[Evidence]) -> bool:
    """Whether the last epoch gained on the one before beyond noise, and the loss fell; adds the evidence."""
    seen = course(run)
    if seen is None:
        return False
    gain, p = float(seen.accuracy[-1] - seen.accuracy[-2]), paired_p_value(seen.right[-2], seen.right[-1])
    facts.append(Evidence("val accuracy, last epoch minus the one before", 100 * gain, 0.0, "points", seen.right.shape[1]))
    return gain > 0 and p < RISING_P and bool(seen.mean_loss[-1] < seen.mean_loss[-2])


def _finding(epochs: int, steps: int, points: float, confidence: float, facts: list[Evidence]) -> Finding:
    return Finding(
        summary=f"training ends after {epochs} epochs ({steps} steps) while it still improves",
        severity_points=max(0.0, points),
        confidence=confidence,
        evidence=tuple(facts),
        remedy=f"train {FACTOR} to 4 times as long, and stop when validation no longer improves",
    )


def treat(case: Case, finding: Finding) -> Intervention | Untreatable:
    """The program's own argument for the number of epochs, three times as large."""
    found = epochs_argument(case.run)
    if found is None:
        return Untreatable("the program has no argument such as --epochs among those it was called with")
    place, argument, epochs = found
    return Intervention(
        "arguments", {"place": place, "value": argument.replace(str(epochs), str(FACTOR * epochs)), "factor": FACTOR}
    )


CHECK = Check(
    code="TRN403",
    name="too_few_epochs",
    stage="choose",
    detect=detect,
    doc=__doc__ or "",
    treat=treat,
    needs_whole_run="whether more epochs would help",
)
