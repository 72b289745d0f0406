"""How the training loss went from batch to batch, with the noise of its batches. No check; the checks of the rate share it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from valgap.checks.shared.seen_part import SETTLED_STEPS, optimizer_steps
from valgap.types import FloatArray, IntArray, RunRecord

Z = 2.0
# A loss that lies still has little noise, so that a fall of nothing is beyond it.
LEAST_FALL = 0.01


@dataclass(frozen=True)
class LossCourse:
    """Losses of the training samples in the order in which they came."""

    loss: FloatArray  # (N,) nats
    batch: IntArray  # (N,) number of the batch within the run, from 0
    steps: int  # optimizer steps

    @property
    def batches(self) -> int:
        return int(self.batch[-1]) + 1

    def mean(self, first: float, last: float) -> tuple[float, float]:
        """(mean, standard error) over the batches between two shares of the run, 0..1; at least one batch."""
        low = min(int(first * self.batches), self.batches - 1)
        high = max(low + 1, math.ceil(last * self.batches))
        part = self.loss[(self.batch >= low) & (self.batch < high)]
        return float(part.mean()), float(part.std() / math.sqrt(len(part))) if len(part) > 1 else float("inf")

    @property
    def start(self) -> float:
        """What the first batch cost, before any step; nats."""
        return float(self.loss[self.batch == 0].mean())

    @property
    def late(self) -> tuple[float, float]:
        """(mean, standard error) of the last third."""
        return self.mean(2 / 3, 1.0)

    def still_falls(self) -> bool:
        """Whether the last quarter lies below the third one, beyond noise and by more than next to nothing."""
        (before, a), (after, b) = self.mean(0.5, 0.75), self.mean(0.75, 1.0)
        return before - after > max(Z * math.hypot(a, b), LEAST_FALL * before)

    def seems_to_fall(self) -> bool:
        """Whether the last third lies below the middle one, by more than one standard error and a tenth."""
        (before, a), (after, b) = self.mean(1 / 3, 2 / 3), self.late
        return before - after > max(math.hypot(a, b), 0.1 * before)

    def fell(self) -> bool:
        """Whether the last third lies below the first, beyond noise."""
        (before, a), (after, b) = self.mean(0.0, 1 / 3), self.late
        return before - after > Z * math.hypot(a, b)


def loss_course(run: RunRecord) -> LossCourse | None:
    """The course over all training passes; None where no loss of a sample is known."""
    losses, batches, offset = [], [], 0
    for one in run.of_phase("train"):
        table = one.samples
        keep = table.labelled & np.isfinite(table.loss)
        if keep.any():
            losses.append(table.loss[keep].astype(np.float64))
            batches.append(table.batch[keep] - table.batch.min() + offset)
            offset = int(batches[-1].max()) + 1
    if not losses:
        return None
    order = np.argsort(np.concatenate(batches), kind="stable")
    numbers = np.unique(np.concatenate(batches)[order], return_inverse=True)[1]
    return LossCourse(np.concatenate(losses)[order], numbers, optimizer_steps(run))


def guess_loss(run: RunRecord) -> float:
    """Cross-entropy of answering by the class shares seen in training, nats; infinite without labels.

    Shares of few images say little, so that each output counts as one more image: 24 images of 1,000 classes leave a guess at
    ln 1000, and a thousand images of ten classes at ln 10.
    """
    last = run.last_train
    if last is None or not last.samples.labelled.any():
        return float("inf")
    counts = np.bincount(last.samples.target[last.samples.labelled])
    model = run.trained_model
    known = [last.loss.num_outputs if last.loss is not None else -1, model.num_outputs if model is not None else -1]
    outputs = max([len(counts), *known])
    n = int(counts.sum())
    counts = counts[counts > 0]
    return float((counts * np.log((n - 1 + outputs) / counts)).sum() / n) or float("inf")


# Without an end of the rise, a loss this many times what it began at does not come back by itself.
EXPLODED = 3.0
# A loss that was once so many times that, and ends no lower than a guess, has thrown the weights away.
THROWN = 10.0


def diverges(course: LossCourse, guess: float, least: float) -> bool:
    """Whether the loss ends ``least`` times above what it began at and above a guess, beyond noise, and does not come down.

    A rate of any size makes a few rough first steps: before momentum has built up, only a loss that multiplies counts.
    """
    level = max(guess, course.start)
    mean, error = course.late
    low = mean - Z * (error if math.isfinite(error) else mean)
    if course.batches < 4 or not math.isfinite(level):
        return False
    peak = float(np.max(np.bincount(course.batch, course.loss) / np.bincount(course.batch)))
    if peak > max(least, THROWN) * level and mean >= guess:
        return True
    last = course.mean((course.batches - 1) / course.batches, 1.0)[0]
    if low > max(least, EXPLODED) * level and last > max(least, EXPLODED) / 2 * level:
        return True
    return course.steps >= SETTLED_STEPS and low > least * level and not course.still_falls()
