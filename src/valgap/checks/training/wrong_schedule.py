"""The learning-rate schedule is stepped at the wrong place, decays to nothing at once, or begins again.

What it looks for
    The rate of every step of each optimizer: most steps of the run below a hundredth of its highest rate. Of a run that was
    stopped, the steps that its loop over epochs still had ahead count as well, where the schedule can only fall. And a
    schedule that was stepped once an epoch although its length (`T_max`, `total_steps`) is exactly the number of the run's
    batches. And a new optimizer that takes up the weights where another one left them, at the rate that this one began
    with and had decayed from, and stays there.
    And a ReduceLROnPlateau that lowers the rate right after epochs that are the best so far in accuracy, validation loss and
    training loss: its mode is that of the other kind of measure.

Why it hurts validation
    Stepped per batch, a schedule meant for epochs has decayed to nothing within the first epoch, and the rest of training
    stands still. Stepped per epoch, a schedule meant for batches stays at its beginning: a warm-up never ends, a decay
    never comes.

What else looks like this
    A schedule that is longer than the run has not acted yet, and nothing is wrong with it: `StepLR(30)` in a trial of 3
    epochs. Cosine and linear schedules end near zero, in the last tenth of the steps. A rate that is low from the first
    step on is too low (TRN402), not badly scheduled. A second optimizer at a much lower rate (first the head, then all)
    is a choice. So are warm restarts, by one schedule or by a new optimizer whose rate falls again. Without a later loss
    or accuracy that is worse than before, a rate that began again is a hint.

Cost
    The most of what a probe on the features, or the head trained again at the highest rate, tells, and of what the same number
    of steps at the highest rate would have added, were accuracy to grow with the logarithm of steps, as it does early on.

Remedy
    Step it at the other place: `scheduler.step()` after each epoch for StepLR, MultiStepLR, CosineAnnealingLR with T_max
    in epochs; after each batch for OneCycleLR and schedules whose length counts batches. Save and load the state of
    scheduler and optimizer with the weights.

Source
    PyTorch tutorials pull request 640; PyTorch documentation of torch.optim.lr_scheduler.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from valgap.checks.shared.progress import TRAINED_SHARE, backbone_trained, replay, shortfall
from valgap.checks.shared.rescored import Gain, between_passes
from valgap.checks.shared.seen_part import MOST_EPOCHS, given_epochs, is_whole, last_states, length_of, trained
from valgap.types import (
    Case,
    Check,
    Clear,
    Evidence,
    Finding,
    FloatArray,
    Intervention,
    NotApplicable,
    Pass,
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
PLATEAU = "ReduceLROnPlateau"
# A rate that these have brought down never comes back.
ONE_WAY = ("StepLR", "MultiStepLR", "ExponentialLR", "PolynomialLR")
TOTALS = ("T_max", "total_steps", "total_iters")  # settings that say how long the whole schedule is
UNMEASURED_POINTS = 5.0
# A rate that began again: it had fallen to a third or less, is back within so much of the first, and stays above the half.
FELL, BACK, STAYED = 1 / 3, 1.5, 0.5
P_VALUE, Z = 0.05, 2.5
FEWEST_ALIVE = 2.0  # steps, of whose logarithm the accuracy is taken to come


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
    turned = lowered_while_improving(run)
    if turned:
        mode = next((s.settings.get("mode") for s in last_states(run) if s.kind == PLATEAU), None)
        facts.append(Evidence("times that the rate was lowered right after the best epoch so far", turned, 0, "times"))
        words = f"ReduceLROnPlateau{f' in mode {mode!r}' if mode else ''} lowers the rate when validation gets better"
        remedy = "give it mode='max' where it is stepped with an accuracy, mode='min' with a loss"
        return _finding(words, cost(run, facts), 0.85 if turned > 1 else HINT, facts, remedy)
    problem = misplaced(run, facts)
    ahead = steps_ahead(run, trace)
    share = (trace.small.sum() + ahead) / (len(trace.rates) + ahead)
    if ahead:
        facts.append(Evidence("the same with the steps that the training still had ahead", share, "at most 0.1"))
    if share > SMALL_SHARE:
        points = max(cost(run, facts), _by_steps(case, trace, ahead, facts))
        scheduled = any(s.optimizer == trace.optimizer for s in run.schedules)
        confidence = 0.9 if trace.by_batch else 0.6 if scheduled else HINT
        of = f"of {len(trace.rates) + ahead:.0f}" + (f" ({len(trace.rates)} were seen)" if ahead else "")
        summary = f"the learning rate falls below a hundredth of its highest at step {trace.place} {of}"
        return _finding(summary, points, confidence, facts, "step the schedule once an epoch, or give it a length in batches")
    if problem is not None:
        confidence, words = problem
        points = cost(run, facts)
        return _finding(words, points, confidence, facts, "step the schedule once a batch, or give it a length in epochs")
    again = begun_again(run)
    if again is not None:
        return _restarted(run, again, facts)
    return Clear(
        "the learning rate does not decay too soon, nor is a schedule of the run's length stepped too seldom", tuple(facts)
    )


def lowered_while_improving(run: RunRecord) -> int:
    """How often a plateau schedule lowered the rate after an epoch that was the best so far in every way that it may look at."""
    if not any(s.kind == PLATEAU for s in run.schedules):
        return 0
    last = run.last_validation
    found = 0
    best = False  # whether the newest validation is the best so far
    rate = -1.0
    for one in run.passes:
        if one.phase == "train" and one.steps.learning_rate.size:
            first = float(np.nanmax(one.steps.learning_rate[0]))
            if 0 <= first < rate and best:
                found += 1
            rate = float(np.nanmax(one.steps.learning_rate[-1]))
        elif last is not None and one.phase == "validation" and one.dataset == last.dataset and one.samples.answered:
            best = _best_so_far(run, one)
    return found


def _best_so_far(run: RunRecord, val: Pass) -> bool:
    """Whether accuracy and loss of a validation, and the loss of training before it, are better than all before them."""
    vals = [p for p in run.of_phase("validation") if p.index < val.index and p.dataset == val.dataset]
    trains = [p for p in run.of_phase("train") if p.index < val.index]
    if not vals or len(trains) < 2:
        return False
    accuracy = val.samples.accuracy > max(p.samples.accuracy for p in vals)
    loss = val.samples.mean_loss < min(p.samples.mean_loss for p in vals)
    return accuracy and loss and trains[-1].samples.mean_loss < min(p.samples.mean_loss for p in trains[:-1])


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


def steps_ahead(run: RunRecord, trace: Trace) -> float:
    """How many steps a training that was stopped still had ahead, where all of them would have been at a small rate; else 0."""
    given, passes = given_epochs(run), trained(run)
    seen = len(passes)
    if not passes or passes[-1].index != int(trace.walk[-1]):
        return 0.0  # it is over: another training, with an optimizer of its own, was stopped
    kinds = {s.kind for s in run.schedules if s.optimizer == trace.optimizer}
    peak = int(trace.rates.argmax())
    falls = bool((np.diff(trace.rates[peak:]) <= 0).all())
    if given is None or given[0] <= seen or not kinds or not kinds <= set(ONE_WAY) or not trace.small[-1] or not falls:
        return 0.0
    return (given[0] - seen) * len(trace.rates) / max(1, len(np.unique(trace.walk)))


def small_share(run: RunRecord) -> float:
    """Share of the steps, after the highest rate, whose rate is below a hundredth of it."""
    trace = longest_trace(run)
    return trace.share if trace is not None else 0.0


def misplaced(run: RunRecord, facts: list[Evidence]) -> tuple[float, str] | None:
    """(confidence, what is wrong in words) of a schedule stepped once an epoch that was made for the run's batches.

    Only where its length is that of the run: any other length may be that of a longer plan. Adds evidence.
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
            or abs(length - steps) > max(1, len(trained))  # an epoch is a batch more or less, as its last one counts
            or not all(is_whole(run, p) for p in trained)
        ):
            continue
        customary = length <= FEW_EPOCHS or (length <= MOST_EPOCHS and length % ROUND == 0)
        confidence = HINT if customary and state.kind != "OneCycleLR" else 0.8
        words = f"{state.kind} counts {length} steps, as many as the run has batches, and was stepped {state.steps} times"
        return confidence, f"{words}, once an epoch"
    return None


@dataclass(frozen=True)
class BegunAgain:
    """A new optimizer at the first rate of the one before it, on the weights that this one left."""

    before: Pass  # the last training pass of the one before
    after: Pass  # its own first pass
    fallen: float  # the rate that the one before had come to
    rate: float  # its own


def begun_again(run: RunRecord) -> BegunAgain | None:
    """The last change of optimizer, if the rate began again with it and stayed there; None if not."""
    trained = [p for p in run.of_phase("train") if p.steps.learning_rate.size]
    found = [pair for pair in pairwise(trained) if not set(_optimizers(pair[0])) & set(_optimizers(pair[1]))]
    if not found or not _continues(run, *found[-1]):
        return None
    before, after = found[-1]
    old, new = set(_optimizers(before)), set(_optimizers(after))
    if _moves(run, old) != _moves(run, new):
        return None
    first = np.concatenate([_rates(p) for p in trained if set(_optimizers(p)) <= old])
    later = np.concatenate([_rates(p) for p in trained if set(_optimizers(p)) <= new])
    peak, fallen = float(first.max()), float(first[-1])
    back = peak / BACK <= later[0] <= peak * BACK and later[-1] >= STAYED * later[0]
    if fallen > FELL * peak or not back:
        return None
    return BegunAgain(before, after, fallen, float(later[0]))


def _optimizers(one: Pass) -> list[int]:
    return [int(i) for i in np.unique(one.steps.optimizer)]


def _rates(one: Pass) -> FloatArray:
    return np.asarray(np.nanmax(one.steps.learning_rate, axis=1))


def _moves(run: RunRecord, optimizers: set[int]) -> list[tuple[str, int]]:
    """What optimizers are and how many tensors each was given: another choice of layers is another stage of training."""
    return sorted((run.optimizers[i].kind, sum(run.optimizers[i].num_parameters)) for i in optimizers if i in run.optimizers)


def _continues(run: RunRecord, before: Pass, after: Pass) -> bool:
    """Whether the second pass began with the weights that the first one, or the validation after it, ended with."""
    if before.model == after.model:
        return not any(w.changed and before.index <= w.after_pass < after.index for w in run.weights_loaded)
    begin = next((s for s in run.states[: max(0, after.state)][::-1] if s.model == after.model), None)
    ends = [s for s in run.states[max(0, before.state) : max(0, after.state)] if s.model == before.model]
    return begin is not None and any(len(s.sums) == len(begin.sums) and not s.moved(begin).any() for s in ends)


def _restarted(run: RunRecord, again: BegunAgain, facts: list[Evidence]) -> Finding:
    """The finding; a suspicion where validation was better before it."""
    facts.append(
        Evidence("rate at which a new optimizer went on, and where the one before had come to", again.rate, again.fallen)
    )
    last = run.last_validation
    earlier = [p for p in run.of_phase("validation") if p.index < again.after.index and last and p.dataset == last.dataset]
    lost: Gain | None = None
    if last is not None and earlier and last.index > again.after.index:
        lost = between_passes(last, earlier[-1])
        facts.append(Evidence("rise of the losses since then, in standard errors", rise_since(run, again, earlier[-1]), 0.0))
    worse = lost is not None and lost.value > 0 and (lost.p_value < P_VALUE or rise_since(run, again, earlier[-1]) > Z)
    points = max(0.0, 100 * lost.value) if lost is not None else 0.0
    words = f"a new optimizer went on at {again.rate:.2g} where the rate had come down to {again.fallen:.2g}, and stayed there"
    remedy = "save and load the state of scheduler and optimizer with the weights, so that the rate goes on where it was"
    return _finding(words, points, 0.8 if worse else HINT, facts, remedy)


def rise_since(run: RunRecord, again: BegunAgain, val: Pass) -> float:
    """How far the losses of training and validation rose, in standard errors: two sets of samples, so both count together."""
    pairs = ((again.before, run.of_phase("train")), (val, run.of_phase("validation")))
    rises = [
        loss_rise(one, [p for p in later if p.index >= again.after.index and p.dataset == one.dataset]) for one, later in pairs
    ]
    return float(sum(rises) / np.sqrt(len(rises)))


def loss_rise(before: Pass, later: Sequence[Pass]) -> float:
    """Mean rise from one pass to the average of later ones, over the samples of all, in standard errors; 0 for too few."""
    tables = [dict(zip(p.samples.sample.tolist(), p.samples.loss.tolist(), strict=True)) for p in (before, *later)]
    known = sorted(set(tables[0]).intersection(*tables[1:]) - {-1})
    losses = np.array([[t[i] for i in known] for t in tables])
    if len(tables) < 2 or len(known) < 2 or not np.isfinite(losses).all():
        return 0.0
    rise = losses[1:].mean(0) - losses[0]
    return float(rise.mean() / (rise.std() / np.sqrt(len(rise)) + 1e-9))


def cost(run: RunRecord, facts: list[Evidence]) -> float:
    """Points, measured where the head could be trained again at its highest rate; adds the evidence."""
    again = replay(run, "constant_rate")
    # The head trained again on the last features knows nothing of what the layers before it did not learn.
    whole = backbone_trained(run) >= TRAINED_SHARE and shortfall(run) is not None
    if again is not None and not whole:
        facts.append(again.evidence("at its highest rate throughout"))
        return max(0.0, 100 * again.gain)
    gap = shortfall(run)
    if gap is not None:
        facts.append(gap.evidence())
        return max(0.0, 100 * gap.value)
    facts.append(Evidence("cost (no re-run): assumed", UNMEASURED_POINTS, 0.0, "points"))
    return UNMEASURED_POINTS


def _by_steps(case: Case, trace: Trace, ahead: float, facts: list[Evidence]) -> float:
    """Points that all steps at the highest rate would add, where accuracy grows with the logarithm of steps; adds the evidence.

    A probe on features that hardly moved, or a head trained again on them, knows nothing of what the layers could have learnt.
    """
    val, classes = case.run.last_validation, case.num_classes or 0
    if val is None or not val.samples.answered or classes < 2 or not backbone_trained(case.run) >= TRAINED_SHARE:
        return 0.0
    reached, chance, steps = val.samples.accuracy, 1 / classes, len(trace.rates) + ahead
    alive = max(FEWEST_ALIVE, float(trace.rates.sum() / trace.rates.max()))
    if alive >= steps or reached <= chance:
        return 0.0
    whole = min(1.0, chance + (reached - chance) * math.log(steps) / math.log(alive))
    facts.append(Evidence("steps at the highest rate that make up all of them", alive, steps, "steps"))
    facts.append(Evidence("accuracy to expect of all steps, as it grows with their logarithm", whole, reached))
    return 100 * (whole - reached)


def _finding(summary: str, points: float, confidence: float, facts: list[Evidence], remedy: str) -> Finding:
    return Finding(summary, points, confidence, tuple(facts), remedy)


def treat(case: Case, finding: Finding) -> Intervention | Untreatable:
    """The schedule stepped at the other place."""
    run = case.run
    if lowered_while_improving(run):
        return Untreatable("what the program steps its schedule with is not seen")
    if begun_again(run) is not None:
        return Untreatable("the scheduler's state at the end of the earlier part is not kept")
    if not run.schedules:
        return Untreatable("the rate is not set by a schedule of torch.optim")
    trained = len(run.of_phase("train"))
    often = max(s.steps for s in run.schedules) > trained + 1
    return Intervention("schedule_steps", {"phase": "train", "every": "epoch" if often else "batch"})


CHECK = Check(
    code="TRN414",
    name="wrong_schedule",
    stage="update",
    detect=detect,
    doc=__doc__ or "",
    treat=treat,
    needs_whole_run="the rates of all steps",
)
