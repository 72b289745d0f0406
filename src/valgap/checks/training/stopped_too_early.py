"""The program's own early stopping ends the training while it still gets better.

What it looks for
    A run that ended before the epochs that it was given (the loop over them, its printed "epoch 3/50", or its argument), after
    one to five epochs whose validation accuracy was no better than the best one before, and no worse beyond the noise of so few
    images. In these epochs more and more training images were answered right, no better than validation images are; and the
    validation loss fell on, beyond noise. Or one that left its loop at the best epoch by accuracy and loss, after a rise of 10
    points or more in its last epochs.

Why it hurts validation
    An epoch is better or worse than the one before by chance: by some points where validation has 100 images. Who waits for
    one or two epochs stops at the first piece of bad luck, on the way up.

What else looks like this
    Early stopping that waited long enough, or ended where validation was flat or fell: nothing is told. A run that used all
    epochs that it was given (TRN403). A trial that was broken off by hand.

Remedy
    Wait longer (patience of 10 epochs and more), count only gains above the noise (min_delta), or watch the validation loss or
    a mean over some epochs in the place of the accuracy.

Source
    Prechelt 1998, "Early Stopping - But When?": slower criteria generalise better.
"""

from __future__ import annotations

import re

import numpy as np

from valgap.checks.shared.early_end import MIN_EPOCHS, Ended, Z, by_chance, ended_early, gain_of_more, goes_on, loss_slope
from valgap.checks.shared.left_loops import stops_by_measure
from valgap.checks.shared.progress import Course, Replay, course, replay
from valgap.checks.shared.seen_part import given_epochs, trained
from valgap.stats import paired_difference
from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, NotApplicable, RunRecord, Untreatable

# Where a re-training of the head for four times as many steps gains less, the end was no loss.
LEAST_GAIN = 0.02
NOTABLE_POINTS, P_VALUE = 10.0, 0.05
LEAST_RISE = 10.0  # smaller ones come every few epochs of a trial that is broken off by hand
RISING = 3  # epochs at the end over which it rose so much
KNOWN, LIKELY = 0.8, 0.65
# Such ends of small trainings cost 12 points in the middle of them; the last epochs of one do not tell how much it is.
UNMEASURED_POINTS = 5.0
FLAGS = re.compile(r"^--?(?:early[-_]?stop\w*[-_])?patience$", re.IGNORECASE)
PATIENCE, FACTOR = 10, 3
REMEDY = (
    f"wait for {PATIENCE} epochs or more (patience), count only gains above the noise (min_delta), or watch a smoothed "
    "figure or the validation loss"
)


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Look for an end before the planned one, and at what the last epochs were worth."""
    run = case.run
    seen = course(run)
    plan = given_epochs(run)
    if seen is None or plan is None:
        return NotApplicable("validation passes over the same images, and how many epochs the training was given")
    if len(trained(run)) >= plan[0] or run.exit_status != 0 or run.stopped is not None:
        return Clear("the training used the epochs that it was given, or was ended by something else")
    if (left := _left_while_rising(run, seen, *plan)) is not None:
        return left
    if len(seen.passes) < MIN_EPOCHS:
        return NotApplicable(f"at least {MIN_EPOCHS} labelled validation passes over the same images")
    ended = ended_early(run)
    if ended is None:
        return Clear("the end was not that of a short wait for a better validation")
    facts = _facts(run, ended)
    if not by_chance(ended):
        return Clear("the last epochs were worse than the best one beyond noise", facts)
    if not goes_on(ended) and not gains(replay(run, "longer")):
        return Clear("nothing was getting better any more when the training stopped", facts)
    return _finding(case, ended, facts)


def _left_while_rising(run: RunRecord, seen: Course, given: int, source: str) -> Finding | None:
    """The finding of a loop that was left at its best epoch, on the way up: nobody means to stop there."""
    last, n = len(seen.passes) - 1, seen.right.shape[1]
    loss = [p.samples.mean_loss for p in seen.passes]
    if last < 1 or seen.accuracy[-1] < max(seen.accuracy) or loss[-1] > min(loss):
        return None
    # Where nothing says that it is left by what was measured, only the last epoch's own rise does: trials break off as well.
    before = max(0, last - (RISING if stops_by_measure(run) else 1))
    value, low, high = (100 * v for v in paired_difference(seen.right[before], seen.right[-1]))
    if low <= 0 or value < LEAST_RISE:
        return None
    epochs = len(trained(run))
    than = "the one before" if before == last - 1 else f"the epoch {last - before} before it"
    return Finding(
        summary=f"training left its loop after {epochs} of {given} epochs, at the best one, {value:.0f} points above {than}",
        severity_points=UNMEASURED_POINTS,
        confidence=LIKELY,
        evidence=(
            Evidence(f"epochs trained, of those that {source} gave", epochs, given, "epochs"),
            Evidence(f"val accuracy, last epoch minus {than}", value, 0.0, "points", n, low, high),
            Evidence("cost (no re-run): assumed", UNMEASURED_POINTS, 0.0, "points"),
        ),
        remedy="see which condition leaves the loop: a better epoch is a reason to go on; " + REMEDY,
    )


def gains(again: Replay | None) -> bool:
    """Whether the head trained for four times as many steps is better beyond noise."""
    return again is not None and 100 * again.gain >= NOTABLE_POINTS and again.p_value < P_VALUE


def _facts(run: RunRecord, ended: Ended) -> tuple[Evidence, ...]:
    seen, best = ended.seen, ended.best
    n = seen.right.shape[1]
    value, low, high = (100 * v for v in paired_difference(seen.right[best], seen.right[-1]))
    slope, error = loss_slope(ended)
    noise = 100 * float(np.sqrt(seen.accuracy[best] * (1 - seen.accuracy[best]) / n))
    facts = [
        Evidence(f"epochs trained, of those that {ended.source} gave", len(trained(run)), ended.given, "epochs"),
        Evidence("epochs at the end without a better val accuracy", ended.waited, f"{PATIENCE} or more", "epochs"),
        Evidence(f"val accuracy, last epoch minus epoch {seen.passes[best].epoch}", value, 0.0, "points", n, low, high),
        Evidence("one standard error of this val accuracy", noise, None, "points", n),
        Evidence("val loss, change an epoch at the end", slope, 0.0, "nats", n, slope - Z * error, slope + Z * error),
        Evidence("train accuracy as it ran, last epoch and best epoch", seen.train_accuracy[-1], seen.train_accuracy[best]),
        Evidence("val accuracy, last epoch and best epoch", seen.accuracy[-1], seen.accuracy[best], "", n),
    ]
    again = replay(run, "longer")
    return tuple([*facts, again.evidence("for four times as many steps")] if again is not None else facts)


def _finding(case: Case, ended: Ended, facts: tuple[Evidence, ...]) -> Finding | Clear:
    again = replay(case.run, "longer")
    found = case.stages.compared("choose") if case.stages is not None else None
    points, confidence = max(UNMEASURED_POINTS, gain_of_more(ended)), LIKELY
    if again is not None:
        if again.gain < LEAST_GAIN:
            return Clear("the head trained for four times as many steps gains nothing by it", facts)
        points, confidence = 100 * again.gain, KNOWN
    elif found is not None and found.verdict == "at fault" and found.points is not None and found.kind == "early":
        points, confidence = found.points.value, max(LIKELY, min(KNOWN, found.confidence))
    epochs = len(trained(case.run))
    told = f"{ended.waited} epoch{'s' * (ended.waited > 1)} without a better val accuracy"
    return Finding(
        summary=f"training stopped after {epochs} of {ended.given} epochs at {told}, while it still got better",
        severity_points=points,
        confidence=confidence,
        evidence=facts,
        remedy=REMEDY,
    )


def treat(case: Case, finding: Finding) -> Intervention | Untreatable:
    """The program's own argument for the patience, larger."""
    argv = case.run.header.get("argv")
    for place, text in enumerate(map(str, argv if isinstance(argv, list) else [])):
        name, equals, value = text.partition("=")
        if equals and FLAGS.match(name if name.startswith("-") else f"--{name}") and value.isdigit():
            return _longer(place, f"{name}=", int(value))
        follows = str(argv[place + 1]) if isinstance(argv, list) and place + 1 < len(argv) else ""
        if FLAGS.match(text) and follows.isdigit():
            return _longer(place + 1, "", int(follows))
    return Untreatable("the program has no argument such as --patience among those it was called with")


def _longer(place: int, name: str, patience: int) -> Intervention:
    value = f"{name}{max(PATIENCE, FACTOR * patience)}"
    return Intervention("arguments", {"place": place, "value": value, "factor": FACTOR})


CHECK = Check(
    code="TRN420",
    name="stopped_too_early",
    stage="choose",
    detect=detect,
    doc=__doc__ or "",
    treat=treat,
    needs_whole_run="when the training is stopped",
)
