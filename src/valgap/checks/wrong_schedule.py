"""The learning-rate schedule is stepped at the wrong place, or decays to nothing at once.

What it looks for
    The rate of every step: a run most of whose steps are below a hundredth of its highest rate. And the length of each schedule
    (`T_max`, `total_steps`, `step_size`, milestones) against how often it was stepped: once an epoch where its length counts
    batches.

Why it hurts validation
    Stepped per batch, a schedule meant for epochs has decayed to nothing within the first epoch, and the rest of training
    stands still. Stepped per epoch, a schedule meant for batches stays at its beginning: a warm-up never ends, a decay never
    comes.

What else looks like this
    Cosine and linear schedules end near zero, in the last tenth of the steps. A rate that is low from the first step on is
    too low (TRN402), not badly scheduled.

Remedy
    Step it at the other place: `scheduler.step()` after each epoch for StepLR, MultiStepLR, CosineAnnealingLR with T_max in
    epochs; after each batch for OneCycleLR and schedules whose length counts batches.

Source
    PyTorch tutorials pull request 640; PyTorch documentation of torch.optim.lr_scheduler.
"""

from __future__ import annotations

import numpy as np

from valgap.checks.progress import replay, shortfall
from valgap.types import (
    Case,
    Check,
    Clear,
    Evidence,
    Finding,
    FloatArray,
    Intervention,
    NotApplicable,
    RunRecord,
    ScheduleState,
    Untreatable,
)

# Cosine and one-cycle schedules spend a tenth of their steps below a hundredth of the highest rate, StepLR(7) over 20 epochs
# none; a schedule stepped per batch instead of per epoch, nine tenths.
SMALL = 0.01
SMALL_SHARE = 0.5
# A length counts batches when it is this many times the steps that an epoch-wise schedule can make.
FACTOR = 4
LENGTHS = ("T_max", "T_0", "total_steps", "total_iters", "step_size")
UNMEASURED_POINTS = 5.0


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Judge the trace of rates and the lengths of the schedules."""
    run = case.run
    rates = highest_rates(run)
    if len(rates) < 4:
        return NotApplicable("the learning rates of at least four optimizer steps")
    peak, small = int(rates.argmax()), small_share(run)
    facts = [Evidence("steps below a hundredth of the highest rate", small, "at most 0.1", "", len(rates))]
    problem = misplaced(run, len(rates), facts)
    if problem is None and small <= SMALL_SHARE:
        return Clear("the learning rate follows the length of the run", tuple(facts))
    points = cost(run, facts)
    if small > SMALL_SHARE:
        where = peak + int((rates[peak:] < SMALL * rates[peak]).argmax())
        summary = f"the learning rate falls below a hundredth of its highest at step {where} of {len(rates)}"
        return _finding(summary, points, 0.9, facts, "step the schedule once an epoch, or give it a length in batches")
    assert problem is not None
    return _finding(problem, points, 0.8, facts, "step the schedule once a batch, or give it a length in epochs")


def highest_rates(run: RunRecord) -> FloatArray:
    """(S,) the highest learning rate of each optimizer step, in order."""
    found = [np.nanmax(p.steps.learning_rate, axis=1) for p in run.of_phase("train") if p.steps.learning_rate.size]
    return np.concatenate(found) if found else np.zeros(0, np.float32)


def small_share(run: RunRecord) -> float:
    """Share of the steps, after the highest rate, whose rate is below a hundredth of it."""
    rates = highest_rates(run)
    if not len(rates) or rates.max() <= 0:
        return 0.0
    peak = int(rates.argmax())
    return float((rates[peak:] < SMALL * rates[peak]).sum() / len(rates))


def misplaced(run: RunRecord, steps: int, facts: list[Evidence]) -> str | None:
    """What is wrong with where a schedule is stepped, in words; adds evidence. None when nothing is."""
    trained = run.of_phase("train")
    last: dict[tuple[int, str], ScheduleState] = {(s.optimizer, s.kind): s for s in run.schedules}
    for state in last.values():
        length = length_of(state)
        if length is None or not state.steps or len(trained) < 2:
            continue
        facts.append(Evidence(f"{state.kind}: length, and times stepped", length, state.steps, "", steps))
        per_epoch = state.steps <= len(trained) + 1
        in_batches = length >= FACTOR * len(trained) and length >= 0.5 * steps
        if per_epoch and in_batches and steps >= FACTOR * len(trained):
            return f"{state.kind} counts {length} steps and was stepped {state.steps} times, once an epoch"
    return None


def length_of(state: ScheduleState) -> int | None:
    """The number of schedule steps that it was made for; None where it does not say."""
    for name in LENGTHS:
        value = state.settings.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
            return int(value)
    milestones = state.settings.get("milestones")
    return int(max(milestones)) if isinstance(milestones, list) and milestones else None


def cost(run: RunRecord, facts: list[Evidence]) -> float:
    """Points, measured where the head could be trained again at its highest rate; adds the evidence."""
    again = replay(run, "constant_rate")
    if again is not None:
        facts.append(again.evidence("at its highest rate throughout"))
        return max(0.0, 100 * again.gain)
    gap = shortfall(run)
    if gap is not None:
        facts.append(gap.evidence())
        return max(0.0, 100 * gap.value)
    facts.append(Evidence("cost (no re-run): assumed", UNMEASURED_POINTS, 0.0, "points"))
    return UNMEASURED_POINTS


def _finding(summary: str, points: float, confidence: float, facts: list[Evidence], remedy: str) -> Finding:
    return Finding(summary, points, confidence, tuple(facts), remedy)


def treat(case: Case, finding: Finding) -> Intervention | Untreatable:
    """The schedule stepped at the other place."""
    run = case.run
    if not run.schedules:
        return Untreatable("the rate is not set by a schedule of torch.optim")
    trained = len(run.of_phase("train"))
    often = max(s.steps for s in run.schedules) > trained + 1
    return Intervention("schedule_steps", {"phase": "train", "every": "epoch" if often else "batch"})


CHECK = Check(code="TRN414", name="wrong_schedule", detect=detect, doc=__doc__ or "", treat=treat)
