"""The optimizer does not step once for each gradient.

What it looks for
    Steps of each optimizer between backward passes: none at all, two and more in a row on the same gradient, or one for so
    many backward passes that an epoch has a handful of them and the loss ends high, or while it still falls.

Why it hurts validation
    Without a step nothing is learnt. A second step on the same gradient doubles the rate, and adaptive optimizers count
    it twice in their averages; training gets rough.

What else looks like this
    Gradient accumulation makes several backward passes for one step, on purpose, and a GradScaler skips its first steps.
    It is told only where it leaves the training far from its end.
    A run of a few batches ends before either has stepped, and is not judged. Two optimizers (backbone and head) may step
    once each after one backward.

Remedy
    One `optimizer.step()` per batch, after `backward()`. With a GradScaler call `scaler.step(optimizer)` and nothing
    else.

Source
    PyTorch documentation, "Automatic mixed precision examples"; PyTorch forum, "optimizer.step called twice".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from valgap.checks.shared.loss_course import loss_course
from valgap.checks.shared.progress import shortfall
from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, NotApplicable, Pass, Untreatable

# A step or two without gradient (a warm-up, a closure) is no fault.
SHARE = 0.2
# A GradScaler that begins at 2 ** 16 skips some steps, hardly ever so many; nobody accumulates more batches than the second.
MOST_SKIPPED, MOST_ACCUMULATED = 10, 64
UNMEASURED_POINTS = {"never": 20.0, "twice": 4.0, "seldom": 5.0}
# Backward passes for a step, steps an epoch and in all, and epochs that make it seldom.
GATHERED, AN_EPOCH, IN_ALL, EPOCHS = 4, 4, 100, 4
THROWN = 2  # backward passes for a step, where the gradients of the others are cleared before it
EACH = 0.9  # of the backward passes are each followed by a clearing
HIGH = 0.5  # share of the first loss that a training which ran its course leaves far behind


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Count the steps of each optimizer that no backward pass preceded."""
    passes = case.run.of_phase("train")
    backwards = sum(p.backwards for p in passes)
    if not backwards:
        return NotApplicable("a training pass with a backward")
    steps = sum(p.optimizer_steps for p in passes)
    again = repeated(passes)
    facts = (
        Evidence("optimizer steps", steps, "one per backward, or per few of them", "steps", backwards),
        Evidence("steps on a gradient that the same optimizer had already used", again, 0, "steps", steps),
    )
    cleared = 2 * sum(p.zero_grads for p in passes) >= backwards  # thrown away, so that they are not accumulated
    most = MOST_SKIPPED if cleared else MOST_ACCUMULATED
    if not steps and backwards <= most:
        return NotApplicable(
            f"more batches: {backwards} backward passes and no step were seen; it takes more than {most} to tell"
        )
    if not steps:
        return _finding(f"{backwards} backward passes and no optimizer step", "never", 0.98, facts)
    if again > SHARE * steps:
        return _finding(f"{again} of {steps} optimizer steps reuse the gradient of the step before", "twice", 0.95, facts)
    epochs, course = sum(p.backwards > 0 for p in passes), loss_course(case.run)
    few = backwards >= GATHERED * steps and steps <= min(IN_ALL, AN_EPOCH * epochs) and epochs >= EPOCHS
    # A schedule that has come to its end holds a loss that is still high.
    unfinished = course is not None and (course.still_falls() or (course.fell() and course.late[0] > HIGH * course.start))
    optimizers = len({int(o) for p in passes for o in np.unique(p.steps.optimizer)})
    each = sum(p.zero_grads for p in passes) / max(1, optimizers) >= EACH * backwards
    # Gradients by which the program itself moved its weights, to take the next one there, are used (SAM: Foret et al. 2021).
    led = sum(int(p.steps.backwards.sum()) for p in passes)
    thrown = each and led >= THROWN * steps and led - steps > MOST_SKIPPED
    if thrown or (few and unfinished):
        rest = "the gradients between are cleared unused" if thrown else "hardly a training"
        told = f"{steps} optimizer steps in {epochs} epochs, one for {backwards / steps:.0f} backward passes: {rest}"
        left = shortfall(case.run)
        points = 100 * left.value if left is not None else 0.0
        return _finding(told, "seldom", 0.9 if thrown else 0.65, facts, points)
    return Clear("each step follows a backward pass of its own", facts)


def repeated(passes: Sequence[Pass]) -> int:
    """Steps of an optimizer since whose last step there was no backward."""
    count = 0
    since: dict[int, int] = {}
    for one in passes:
        for optimizer, backwards in zip(one.steps.optimizer.tolist(), one.steps.backwards.tolist(), strict=True):
            for other in since:
                since[other] += backwards
            count += optimizer in since and since[optimizer] == 0
            since[optimizer] = 0
    return count


def _finding(summary: str, kind: str, confidence: float, facts: tuple[Evidence, ...], measured: float = 0.0) -> Finding:
    points = max(UNMEASURED_POINTS[kind], measured)
    how = "a probe on the last features" if measured >= points else "assumed"
    seldom = "step more often: gather the gradients of fewer batches, or train as many times longer"
    return Finding(
        summary=summary,
        severity_points=points,
        confidence=confidence,
        evidence=(*facts, Evidence(f"cost (no re-run): {how}", points, 0.0, "points")),
        remedy=seldom
        if kind == "seldom"
        else "call optimizer.step() once after each backward() (with a GradScaler: scaler.step(optimizer) only)",
    )


def treat(case: Case, finding: Finding) -> Intervention | Untreatable:
    """A step on a used gradient does nothing."""
    if not sum(p.optimizer_steps for p in case.run.of_phase("train")):
        return Untreatable("the program never steps, so there is no step to act at")
    if not repeated(case.run.of_phase("train")):
        return Untreatable("a step after each backward pass is another training, with another rate")
    return Intervention("step_once", {"phase": "train"})


CHECK = Check(code="TRN413", name="wrong_step_count", stage="update", detect=detect, doc=__doc__ or "", treat=treat)
