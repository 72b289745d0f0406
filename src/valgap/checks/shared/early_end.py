"""How a training ended that had more epochs to go: by its own early stopping, it seems. No check; those of the end share it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from valgap.checks.shared.progress import Course, course
from valgap.checks.shared.seen_part import given_epochs, is_whole, trained
from valgap.stats import paired_difference, wilson_interval
from valgap.types import RunRecord

# Fewer validations say nothing of how a curve goes, and who waits for more epochs than this does not stop by chance.
MIN_EPOCHS, MOST_WAITED = 4, 5
Z = 2.0
# Points of training accuracy that an epoch of the wait must have brought: losses fall on where answers only become surer. With
# ROOM left above it, most of such ends (19 of 20 small trainings with early stopping) lose more than a point of accuracy.
RISE, ROOM = 0.5, 0.05


@dataclass(frozen=True)
class Ended:
    """A training that its own early stopping may have ended."""

    seen: Course
    given: int  # epochs
    source: str  # where that is known from
    waited: int  # epochs at the end whose validation accuracy was no better than the best one's

    @property
    def best(self) -> int:
        """The epoch that none after it was better than."""
        return len(self.seen.passes) - 1 - self.waited


def ended_early(run: RunRecord) -> Ended | None:
    """The end of a training, where it came after as many epochs without a better validation as never before in it."""
    seen, plan = course(run), given_epochs(run)
    passes = trained(run) if run.of_phase("train") else []
    if seen is None or plan is None or run.exit_status != 0 or run.stopped is not None or len(seen.passes) < MIN_EPOCHS:
        return None
    if len(passes) >= plan[0] or not is_whole(run, passes[-1]) or seen.passes[-1].epoch != passes[-1].epoch + 1:
        return None
    waited = _waited(seen.accuracy)
    return Ended(seen, *plan, waited) if 1 <= waited <= MOST_WAITED else None


def _waited(curve: npt.NDArray[np.float64]) -> int:
    """Epochs since the best one, where there were never as many in a row without a better one before; else 0."""
    waits, best = [0], -np.inf
    for value in curve:
        if value > best:
            best = float(value)
            waits.append(0)
        else:
            waits[-1] += 1
    return waits[-1] if waits[-1] > max(waits[:-1]) else 0


def by_chance(ended: Ended) -> bool:
    """Whether the last epoch is no less accurate than the best one beyond noise."""
    return paired_difference(ended.seen.right[ended.best], ended.seen.right[-1])[2] >= 0


def goes_on(ended: Ended) -> bool:
    """Whether more and more training images were answered right during the wait, and validation loss fell all the same.

    Training images are not to be answered better than validation images yet, and have room left to be.
    """
    seen = ended.seen
    rise = 100 * float(seen.train_accuracy[-1] - seen.train_accuracy[ended.best]) / ended.waited
    no_gap = seen.train_accuracy[-1] <= wilson_interval(int(seen.right[-1].sum()), seen.right.shape[1])[1]
    slope, error = loss_slope(ended)
    fall = seen.loss[ended.best] - seen.loss[-1]
    falls = slope < -Z * error and float(fall.mean()) > Z * float(fall.std()) / np.sqrt(len(fall))
    return bool(rise > RISE and no_gap and seen.train_accuracy[-1] < 1 - ROOM and falls)


def loss_slope(ended: Ended) -> tuple[float, float]:
    """(nats of validation loss an epoch, standard error) over the last epochs: the wait, and three before it."""
    rows = ended.seen.loss[-(ended.waited + 3) :]
    time = np.arange(len(rows)) - (len(rows) - 1) / 2
    slopes = time @ rows / (time @ time)
    return float(slopes.mean()), float(slopes.std() / np.sqrt(len(slopes)))


def gain_of_more(ended: Ended) -> float:
    """Points of accuracy that as many epochs as the last ones would add, if they add half of what those did."""
    rows = ended.seen.accuracy[-(ended.waited + 3) :]
    time = np.arange(len(rows)) - (len(rows) - 1) / 2
    return max(0.0, 100 * float(time @ rows / (time @ time)) * len(rows) / 2)


def broke_off(run: RunRecord) -> bool:
    """Whether the training ended before the epochs that it was given, and no validation was a reason for it."""
    plan, passes = given_epochs(run), trained(run) if run.of_phase("train") else []
    if plan is None or not passes or len(passes) >= plan[0] or run.exit_status != 0 or run.stopped is not None:
        return False
    curve = [p.samples.accuracy for p in run.of_phase("validation") if p.samples.answered]
    return is_whole(run, passes[-1]) and bool(curve) and curve[-1] >= max(curve)


def stopped_on_its_way(run: RunRecord) -> bool:
    """Whether its own early stopping ended it by chance, while it still got better."""
    ended = ended_early(run)
    return ended is not None and by_chance(ended) and goes_on(ended)
