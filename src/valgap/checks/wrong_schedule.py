"""The learning-rate schedule is stepped at the wrong place, or decays to nothing at once.

What it looks for
    The rate of every step of each optimizer: most steps of the run below a hundredth of its highest rate. And a schedule
    that was stepped once an epoch although its length (`T_max`, `total_steps`) is exactly the number of the run's
    batches.

Why it hurts validation
    Stepped per batch, a schedule meant for epochs has decayed to nothing within the first epoch, and the rest of training
    stands still. Stepped per epoch, a schedule meant for batches stays at its beginning: a warm-up never ends, a decay
    never comes.

What else looks like this
    A schedule that is longer than the run has not acted yet, and nothing is wrong with it: `StepLR(30)` in a trial of 3
    epochs. Cosine and linear schedules end near zero, in the last tenth of the steps. A rate that is low from the first
    step on is too low (TRN402), not badly scheduled. A second optimizer at a much lower rate (first the head, then all)
    is a choice.

Remedy
    Step it at the other place: `scheduler.step()` after each epoch for StepLR, MultiStepLR, CosineAnnealingLR with T_max
    in epochs; after each batch for OneCycleLR and schedules whose length counts batches.

Source
    PyTorch tutorials pull request 640; PyTorch documentation of torch.optim.lr_scheduler.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from valgap.checks.progress import replay, shortfall
from valgap.checks.seen_part import MOST_EPOCHS, is_whole, last_states, length_of
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
    Untreatable,
)

# Cosine and one-cycle schedules spend a tenth of their steps below a hundredth of the highest rate, StepLR(7) over 20 epochs
# none; a schedule stepped per batch instead of per epoch, nine tenths.
SMALL = 0.01
SMALL_SHARE = 0.5
# The number of batches an epoch from which on "once an epoch" and "once a batch" are different things.
FACTOR = 4
# Lengths that people give in epochs: any up to 20, above that round ones.
FEW_EPOCHS, ROUND = 20, 5
HINT = 0.4
TOTALS = ("T_max", "total_steps", "total_iters")  # settings that say how long the whole schedule is
UNMEASURED_POINTS = 5.0


@dataclass(frozen=True)
class Trace:
    """The highest learning rate of each step of one optimizer."""

    optimizer: int
    rates: FloatArray  # (S,)
    walk: FloatArray  # (S,) position of the pass of each step

    @property
    def small(self) -> FloatArray:
        """(S,) whether the rate lies below a hundredth of the highest one, after that."""
        peak = int(self.rates.argmax())
        return np.asarray((np.arange(len(self.rates)) > peak) & (self.rates < SMALL * self.rates[peak]))

    @property
    def share(self) -> float:
        return float(self.small.mean()) if len(self.rates) and self.rates.max() > 0 else 0.0

    @property
    def place(self) -> int:
        """The first step at so small a rate."""
        return int(self.small.argmax())

    @property
    def by_batch(self) -> bool:
        """Whether the rate fell inside of passes, not only from one to the next."""
        part = slice(0, self.place + 1)
        fell = np.diff(self.rates[part]) < 0
        return bool((fell & (np.diff(self.walk[part]) == 0)).any())


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Judge the trace of rates, and where schedules of the run's own length were stepped."""
    run = case.run
    trace = longest_trace(run)
    if trace is None or len(trace.rates) < 4:
        return NotApplicable("the learning rates of at least four optimizer steps")
    facts = [Evidence("steps below a hundredth of the highest rate", trace.share, "at most 0.1", "", len(trace.rates))]
    problem = misplaced(run, facts)
    if trace.share > SMALL_SHARE:
        points = cost(run, facts)
        scheduled = any(s.optimizer == trace.optimizer for s in run.schedules)
        confidence = 0.9 if trace.by_batch else 0.6 if scheduled else HINT
        summary = f"the learning rate falls below a hundredth of its highest at step {trace.place} of {len(trace.rates)}"
        return _finding(summary, points, confidence, facts, "step the schedule once an epoch, or give it a length in batches")
    if problem is not None:
        confidence, words = problem
        points = cost(run, facts)
        return _finding(words, points, confidence, facts, "step the schedule once a batch, or give it a length in epochs")
    return Clear(
        "the learning rate does not decay too soon, nor is a schedule of the run's length stepped too seldom", tuple(facts)
    )


def longest_trace(run: RunRecord) -> Trace | None:
    """The trace of the optimizer with the most steps; None without steps."""
    found: dict[int, list[tuple[FloatArray, int]]] = {}
    for one in run.of_phase("train"):
        for number in np.unique(one.steps.optimizer).tolist() if one.steps.learning_rate.size else ():
            own = one.steps.learning_rate[one.steps.optimizer == number]
            found.setdefault(number, []).append((np.nanmax(own, axis=1), one.index))
    traces = [
        Trace(n, np.concatenate([r for r, _ in parts]), np.concatenate([np.full(len(r), i) for r, i in parts]))
        for n, parts in found.items()
    ]
    return max(traces, key=lambda t: len(t.rates), default=None)


def small_share(run: RunRecord) -> float:
    """Share of the steps, after the highest rate, whose rate is below a hundredth of it."""
    trace = longest_trace(run)
    return trace.share if trace is not None else 0.0


def misplaced(run: RunRecord, facts: list[Evidence]) -> tuple[float, str] | None:
    """(confidence, what is wrong in words) of a schedule stepped once an epoch that was made for the run's batches.

    Only where its length is exactly that of the run: any other length may be that of a longer plan. Adds evidence.
    """
    trained = run.of_phase("train")
    steps = sum(p.optimizer_steps for p in trained)
    for state in last_states(run):
        length = length_of(state)
        if length is None or state.steps <= 0:
            continue
        facts.append(Evidence(f"{state.kind}: length, and times stepped", length, state.steps, "", steps))
        per_epoch = state.steps <= len(trained) + 1 and steps >= FACTOR * len(trained)
        whole = any(name in state.settings for name in TOTALS)
        if (
            len(trained) < 2
            or not whole
            or not per_epoch
            or abs(length - steps) > 1
            or not all(is_whole(run, p) for p in trained)
        ):
            continue
        customary = length <= FEW_EPOCHS or (length <= MOST_EPOCHS and length % ROUND == 0)
        confidence = HINT if customary and state.kind != "OneCycleLR" else 0.8
        words = f"{state.kind} counts {length} steps, as many as the run has batches, and was stepped {state.steps} times"
        return confidence, f"{words}, once an epoch"
    return None


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


CHECK = Check(code="TRN414", name="wrong_schedule", stage="update", detect=detect, doc=__doc__ or "", treat=treat)
