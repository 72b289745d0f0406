"""Two records side by side: what differs in settings, source, data and result, where they part, and what explains what."""

from __future__ import annotations

import numpy as np

from valgap.comparison.aligned import Aligned
from valgap.comparison.bits import loss_growth
from valgap.comparison.data import data_difference
from valgap.comparison.source import source_differences
from valgap.comparison.verdict import Judgement, judge
from valgap.exhibits.settings import settings_of
from valgap.stats import paired_difference, paired_mean, paired_p_value, wilson_interval
from valgap.types import Accuracy, Comparison, Difference, Effect, Measured, Pass, RunRecord

# What differs between any two runs and explains nothing.
IGNORED = {("program", "took")}


def compare(first: RunRecord, second: RunRecord) -> Comparison:
    """What distinguishes the second run from the first.

    Gains are paired: over the validation samples that both runs scored and give the same label (by name below their data
    sets' folders), tested by McNemar's exact test.
    """
    aligned = Aligned(first, second)
    data = [d for phase in ("train", "validation") if (d := data_difference(first, second, aligned, phase)) is not None]
    settings = _settings(first, second)
    source = source_differences(first, second)
    judged: Judgement = judge(first, second, aligned, data, settings, source)
    gain, why = _gain(first, second, aligned, (first.last_validation, second.last_validation))
    best, _ = _gain(first, second, aligned, (first.best_validation, second.best_validation))
    return Comparison(
        paths=(first.path, second.path),
        accuracy=(_accuracy(first), _accuracy(second)),
        settings=settings,
        data=tuple(data),
        gain=gain,
        why_no_gain=why,
        best_gain=best,
        verdict=judged.verdict,
        why=judged.why,
        headline=judged.headline,
        departures=judged.departures,
        parted=judged.parted,
        growth=tuple(loss_growth(first, second)) if judged.verdict == "rounding" else (),
        source=source,
        missing=judged.missing,
    )


def _settings(first: RunRecord, second: RunRecord) -> tuple[Difference, ...]:
    tables = [{(s.group, s.name): s.value for s in settings_of(run)} for run in (first, second)]
    keys = [*tables[0], *(k for k in tables[1] if k not in tables[0])]
    return tuple(
        Difference(*key, tables[0].get(key), tables[1].get(key))
        for key in keys
        if key not in IGNORED and tables[0].get(key) != tables[1].get(key)
    )


def _accuracy(run: RunRecord) -> Accuracy | None:
    last = run.last_validation
    if last is None or not last.samples.labelled.any():
        return None
    right = last.samples.correct
    return Accuracy(float(right.mean()), *wilson_interval(int(right.sum()), len(right)), len(right))


def _gain(
    first: RunRecord, second: RunRecord, aligned: Aligned, passes: tuple[Pass | None, Pass | None]
) -> tuple[Effect | None, str]:
    answers = [
        _answers(run, aligned, side, one) if one is not None else {}
        for side, (run, one) in enumerate(zip((first, second), passes, strict=True))
    ]
    if not all(answers):
        return None, "one of the runs has no validation result with known samples"
    keys = [k for k in answers[0] if k in answers[1] and answers[0][k][0] == answers[1][k][0]]
    if not keys:
        return None, "the runs have no validation sample in common"
    before, after = (np.array([a[k][1] for k in keys], bool) for a in answers)
    losses = np.array([[a[k][2] for k in keys] for a in answers], np.float64)
    value, low, high = paired_difference(before, after)
    nats, nats_p = None, None
    if np.isfinite(losses).all():
        *measured, nats_p = paired_mean(losses[:1] - losses[1:])
        nats = Measured(*measured)
    return Effect(100 * value, 100 * low, 100 * high, paired_p_value(before, after), 1, len(keys), nats, nats_p), ""


def _answers(run: RunRecord, aligned: Aligned, side: int, one: Pass) -> dict[int, tuple[str, bool, float]]:
    """Sample -> (label as given, whether the answer was right, its loss in nats), of one validation pass."""
    data = run.datasets.get(one.dataset)
    classes = {index: name for name, index in (data.class_to_idx or {}).items()} if data is not None else {}
    table = one.samples
    keep = table.labelled
    rows = zip(
        aligned.keys(side, one)[keep].tolist(),
        table.target[keep].tolist(),
        table.prediction[keep].tolist(),
        table.bounded_loss.tolist(),
        strict=True,
    )
    return {k: (classes.get(t, str(t)), t == p, loss) for k, t, p, loss in rows if k >= 0}
