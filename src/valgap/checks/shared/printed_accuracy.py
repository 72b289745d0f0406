"""Which printed numbers are the accuracy of which recorded validation pass, and what else they may be. No check itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from valgap.types import Pass, PrintedNumber, RunRecord

# Numbers of a meter's batch, of one class, of another model or of the best pass so far are no accuracy of one pass.
WHOLE = ("value", "average")


@dataclass(frozen=True)
class Told:
    """A printed number with the validation passes that it may speak of (the newest last)."""

    number: PrintedNumber
    passes: tuple[Pass, ...]
    around: tuple[Pass, ...]  # these, and the passes between them that are no validation

    @property
    def half(self) -> float:
        """Half a unit of the last printed digit, in the number's own unit."""
        return float(0.5 * 10.0**-self.number.decimals)

    @property
    def readings(self) -> tuple[tuple[float, float], ...]:
        """(share, half a unit of its last digit): one where the unit is known, else as a share and as percent."""
        value, half = self.number.value, self.half
        share, percent = (value, half + 1e-6), (value / 100, half / 100 + 1e-6)
        if self.number.unit == "percent":
            return (percent,)
        return (share,) if self.number.unit == "share" else (share, percent)

    def equals(self, share: float) -> bool:
        """Whether the number is this share, rounded."""
        return any(abs(value - share) <= tolerance for value, tolerance in self.readings)

    def states(self, share: float) -> bool:
        """Whether the number is this share, rounded or cut off after its last digit."""
        return any(-tolerance <= share - value < 2 * tolerance for value, tolerance in self.readings)


def told(run: RunRecord, metric: str) -> dict[str, list[Told]]:
    """Series of printed numbers that are, by words and place, this metric of a whole validation pass: one for each pass."""
    series: dict[str, dict[int, Told]] = {}
    for number in run.printed:
        if not is_whole(number, metric):
            continue
        found = series.setdefault(number.series or number.label, {})
        before = [t.number.after_pass for t in found.values() if t.number.after_pass < number.after_pass]
        around = _around(run, number, max(before, default=-1))
        passes = tuple(p for p in around if p.phase == "validation" and p.samples.labelled.any())
        if passes:
            # The last one printed there counts.
            found[number.after_pass] = Told(of_what_was_given(run, number, passes[-1]), passes, around)
    return {name: list(found.values()) for name, found in series.items() if found}


def of_what_was_given(run: RunRecord, number: PrintedNumber, one: Pass) -> PrintedNumber:
    """The number; where the pass was cut short on purpose and the program divided by all that there is, of what it was given."""
    dataset = run.datasets.get(one.dataset)
    if run.shortened is None or not run.shortened.cut(one.index) or dataset is None or dataset.size <= 0:
        return number
    right, seen = int(one.samples.correct.sum()), len(one.samples)
    as_printed = Told(number, (one,), ())
    if as_printed.states(one.samples.accuracy) or not as_printed.states(right / dataset.size):
        return number
    return replace(number, value=number.value * dataset.size / seen, decimals=max(0, number.decimals - 1))


def is_whole(number: PrintedNumber, metric: str) -> bool:
    """Whether the words allow that the number is this metric of a whole validation pass."""
    over = number.finished is not False and (not number.running or number.finished is True)
    return number.metric == metric and number.kind in WHOLE and number.side != "train" and over


def _around(run: RunRecord, number: PrintedNumber, last_told: int) -> tuple[Pass, ...]:
    """The evaluations in a row that ended last, since the same print spoke before."""
    at = number.after_pass
    if not 0 <= at < len(run.passes):
        return ()
    if run.passes[at].phase == "train":
        if number.side not in ("val", "test"):
            return ()
        # A bar that shows the last validation while the next epoch trains; it was told before where it can be.
        at, last_told = at - 1, -1
    first = at
    while first >= 0 and run.passes[first].phase != "train" and first > last_told:
        first -= 1
    return tuple(run.passes[first + 1 : at + 1])


def other_truths(run: RunRecord, one: Told) -> Iterable[float]:
    """Right accuracies of whatever else was there to print: passes so far, re-scores, training where no side is said."""
    for other in run.passes[: one.number.after_pass + 1]:
        if other.samples.labelled.any() and (other.phase != "train" or not one.number.side):
            yield other.samples.accuracy
            if other.phase == "train":
                yield mean_of_batches(other)
    if run.closing is not None:
        for table in run.closing.rescores.values():
            if table.labelled.any():
                yield table.accuracy


def other_series(run: RunRecord, numbers: list[Told]) -> Mapping[str, list[float]]:
    """What a print may show at each of its numbers instead: consistent readings that are no fault."""
    found: dict[str, list[float]] = {}
    for t in numbers:
        at = t.passes[-1].index
        passes = [p for p in run.of_phase("validation") if p.samples.labelled.any() and p.index <= at]
        validations = [p.samples.accuracy for p in passes]
        known = [p.samples.loss[p.samples.labelled & ~np.isnan(p.samples.loss)] for p in passes]
        losses = [float(loss.mean()) if len(loss) else float("nan") for loss in known]
        trained = [p for p in run.of_phase("train") if p.samples.labelled.any() and p.index < at]
        values = {
            "best so far": max(validations, default=float("nan")),
            "at the best loss so far": min(zip(losses, validations, strict=True), default=(0.0, float("nan")))[1],
            # Beside a progress it may well be meant so; alone, after the pass, it is not.
            "last batch": last_batch(t.passes[-1]) if t.number.finished is not None else float("nan"),
            "train": trained[-1].samples.accuracy if trained else float("nan"),
            "train by batches": mean_of_batches(trained[-1]) if trained else float("nan"),
        }
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    return found


def mean_of_batches(one: Pass) -> float:
    """The mean of the accuracies of a pass's batches."""
    keep = one.samples.labelled
    batch = one.samples.batch[keep]
    return float(np.mean([one.samples.correct[batch == b].mean() for b in np.unique(batch)]))


def last_batch(one: Pass) -> float:
    """The accuracy of a pass's last batch."""
    batch = one.samples.batch[one.samples.labelled]
    return float(one.samples.correct[batch == batch.max()].mean())
