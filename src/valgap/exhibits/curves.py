"""Learning curves: one point per pass, with the closing re-scores at the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from valgap.stats import wilson_interval
from valgap.types import Clear, Diagnosis, Finding, Pass, RunRecord, SampleTable, Series

TOO_FEW = "DAT107"  # the cause that is judged by the curve over data size
TRAIN, RESCORED, VALIDATION = "train, as the epoch ran", "train, scored like validation", "validation"


def accuracy_curves(run: RunRecord) -> tuple[Series, ...]:
    """Accuracy (0..1) over epochs: train as reported, train re-scored, validation with its 95 % interval."""
    train = _series(TRAIN, run.of_phase("train"), 1, lambda p: p.samples.accuracy)
    tables = [(float(p.epoch), p.samples) for p in run.of_phase("validation") if p.samples.labelled.any()]
    spans = [wilson_interval(int(t.correct.sum()), len(t.correct)) for _, t in tables]
    val = Series(
        VALIDATION,
        tuple(x for x, _ in tables),
        tuple(t.accuracy for _, t in tables),
        tuple(low for low, _ in spans),
        tuple(high for _, high in spans),
    )
    rescored = _last(run, lambda t: t.accuracy)
    table = run.closing.rescores.get("train_eval") if run.closing is not None else None
    if rescored is not None and table is not None:
        low, high = wilson_interval(int(table.correct.sum()), len(table.correct))
        rescored = replace(rescored, low=(low,), high=(high,))
    return tuple(s for s in (train, rescored, val) if s is not None and s.x)


def loss_curves(run: RunRecord) -> tuple[Series, ...]:
    """Cross-entropy (nats) over epochs, of the same passes."""
    train = _series(TRAIN, run.of_phase("train"), 1, lambda p: p.samples.mean_loss)
    val = _series(VALIDATION, run.of_phase("validation"), 0, lambda p: p.samples.mean_loss)
    rescored = _last(run, lambda t: t.mean_loss)
    return tuple(s for s in (train, rescored, val) if s is not None and s.x)


def data_size_curve(diagnosis: Diagnosis) -> tuple[Series, ...]:
    """Accuracy of probes on growing shares of train: mean and range over subsets. Only where a check has asked for it already."""
    asked = any(j.check.code == TOO_FEW and isinstance(j.outcome, Finding | Clear) for j in diagnosis.judged)
    curve = diagnosis.images.learning_curve if asked and diagnosis.images is not None else None
    if curve is None or not len(curve.sizes):
        return ()
    name = "a probe on so many training images, scored on " + ("validation" if curve.on_val else "held-out training images")
    columns = [curve.sizes, curve.accuracies.mean(1), curve.accuracies.min(1), curve.accuracies.max(1)]
    x, y, low, high = (tuple(float(v) for v in column) for column in columns)
    return (Series(name, x, y, low, high),)


def _series(name: str, passes: Sequence[Pass], shift: int, value: Callable[[Pass], float]) -> Series:
    points = [(float(p.epoch + shift), float(value(p))) for p in passes]
    kept = [(x, y) for x, y in points if math.isfinite(y)]
    return Series(name, tuple(x for x, _ in kept), tuple(y for _, y in kept))


def _last(run: RunRecord, value: Callable[[SampleTable], float]) -> Series | None:
    table: SampleTable | None = run.closing.rescores.get("train_eval") if run.closing is not None else None
    if table is None or not math.isfinite(value(table)):
        return None
    return Series(RESCORED, (float(len(run.of_phase("train"))),), (float(value(table)),))
