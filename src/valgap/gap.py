"""What looks like one gap between training and validation accuracy, split into its parts.

The parts of kind "part" lead from the reported training accuracy to the recorded validation accuracy and sum; those of
kind "beside" say what either side could be under other circumstances.
"""

from __future__ import annotations

import math

from valgap.checks.shared.rescored import between, over_recorded, reloaded_since
from valgap.stats import wilson_interval
from valgap.types import CaseImages, GapPart, Pass, RunRecord, SampleTable

# Other ways to prepare the same validation images, each scored after the program had ended.
PREPARATIONS = ("val_fixed", "val_train_norm", "val_weights_norm", "val_weights", "val_flipped_channels")
Z = 1.96
FEWEST = 10  # shares of fewer images are left out


def gap_parts(run: RunRecord, images: CaseImages | None) -> tuple[GapPart, ...]:
    """Every part that this run's record and images allow; empty without a labelled training and validation pass."""
    train, val = run.last_train, run.last_validation
    if train is None or val is None or math.isnan(train.samples.accuracy) or math.isnan(val.samples.accuracy):
        return ()
    tables = run.closing.rescores if run.closing is not None else {}
    return (
        *_parts(run, train, val, tables.get("train_eval"), tables.get("val_eval"), images),
        *_beside(run, val, tables.get("train_eval"), images),
    )


def _parts(
    run: RunRecord,
    train: Pass,
    val: Pass,
    train_again: SampleTable | None,
    val_again: SampleTable | None,
    images: CaseImages | None,
) -> list[GapPart]:
    train_again = train_again if train_again is not None and len(train_again.correct) >= FEWEST else None
    val_again = val_again if val_again is not None and len(val_again.correct) >= FEWEST else None
    reported, recorded = train.samples.accuracy, val.samples.accuracy
    high = reported if train_again is None else train_again.accuracy
    low = recorded if val_again is None else val_again.accuracy
    parts = []
    if train_again is not None:
        told = f"training accuracy as the last epoch ran, minus {len(train_again.correct)} of the images scored like validation"
        parts.append(_with_interval("measurement of train", train.samples, train_again, told))
    shift = _shift(images)
    rest = 100 * (high - low)
    if shift is not None:
        parts.append(shift)
        told = "training minus validation accuracy, both scored alike, beyond the shift"
        around = 100 * Z * _error(train_again or train.samples, val_again or val.samples)
        around = math.hypot(around, ((shift.high or 0.0) - (shift.low or 0.0)) / 2)
        value = rest - shift.points
        parts.append(GapPart("overfit", value, value - around, value + around, told))
    else:
        told = "training minus validation accuracy, both scored alike; no held-out probe tells the two apart"
        parts.append(_with_interval("overfit and shift", train_again or train.samples, val_again or val.samples, told))
    if val_again is not None:
        told = "validation in eval mode, minus as the script scored it"
        told += " (other weights were loaded since)" if reloaded_since(run, val) else ""
        gain = over_recorded(run, val, val_again)
        low_at, high_at = None, None
        if gain is not None and gain.n == len(val_again.correct):
            low_at, high_at = 100 * gain.low, 100 * gain.high
        parts.append(GapPart("measurement of val", 100 * (low - recorded), low_at, high_at, told))
    return parts


def _error(a: SampleTable, b: SampleTable) -> float:
    """Standard error of the difference of two accuracies; one pseudo-observation keeps it above zero."""
    return math.sqrt(sum((t.correct.var() * len(t.correct) + 1.0 / len(t.correct)) / len(t.correct) ** 2 for t in (a, b)))


def _with_interval(name: str, a: SampleTable, b: SampleTable, told: str) -> GapPart:
    value, around = 100 * (a.accuracy - b.accuracy), 100 * Z * _error(a, b)
    return GapPart(name, value, value - around, value + around, told)


def _shift(images: CaseImages | None) -> GapPart | None:
    """How much worse a probe that saw neither does on validation than on held-out training images."""
    held = images.held_out if images is not None else None
    if images is None or held is None or math.isnan(held.val_accuracy) or math.isnan(held.train_accuracy):
        return None
    known = images.rows.labels >= 0
    counts = [int((known & side).sum()) for side in (~images.rows.is_val, images.rows.is_val)]
    shares = held.train_accuracy, held.val_accuracy
    error = math.sqrt(sum(p * (1 - p) / max(1, n) for p, n in zip(shares, counts, strict=True)))
    value = 100 * (shares[0] - shares[1])
    told = "a probe on held-out training images, minus the same probe on validation images"
    return GapPart("shift", value, value - 100 * Z * error, value + 100 * Z * error, told)


def _beside(run: RunRecord, val: Pass, train_again: SampleTable | None, images: CaseImages | None) -> list[GapPart]:
    found = []
    if train_again is not None and len(train_again.correct) >= FEWEST:
        told = f"of {len(train_again.correct)} training images scored like validation, those that the finished model gets wrong"
        low, high = wilson_interval(int((~train_again.correct).sum()), len(train_again.correct))
        found.append(GapPart("underfit", 100 * (1 - train_again.accuracy), 100 * low, 100 * high, told, "beside"))
    gains = [g for g in (between(run, name) for name in PREPARATIONS) if g is not None]
    if gains:
        best = max(gains, key=lambda g: g.value)
        told = "the best other preparation of the same validation images, minus the script's"
        found.append(GapPart("preprocessing", 100 * best.value, 100 * best.low, 100 * best.high, told, "beside"))
    errors = images.label_errors if images is not None else None
    for side, rate in (("train", errors.train_rate), ("val", errors.val_rate)) if errors is not None else ():
        if not math.isnan(rate):
            told = f"labels of {side} that are likely wrong"
            found.append(GapPart(f"labels of {side}", 100 * rate, None, None, told, "beside"))
    right = val.samples.correct
    low, high = wilson_interval(int(right.sum()), len(right))
    told = f"half of the 95 % interval of {len(right)} validation images"
    found.append(GapPart("noise", 50 * (high - low), None, None, told, "beside"))
    return found
