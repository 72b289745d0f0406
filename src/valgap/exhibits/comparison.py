"""Two runs side by side: what differs in settings, data and result, and whether the result differs beyond chance."""

from __future__ import annotations

import os

import numpy as np

from valgap.exhibits.settings import settings_of
from valgap.stats import paired_difference, paired_p_value, wilson_interval
from valgap.types import Accuracy, Comparison, DataDifference, Difference, Effect, Pass, Phase, RunRecord

MAX_EXAMPLES = 5
# What differs between any two runs and explains nothing.
IGNORED = {("program", "took")}


def compare(first: RunRecord, second: RunRecord) -> Comparison:
    """What distinguishes the second run from the first.

    The gain is paired: over the validation samples that both runs scored last and give the same label (by name below
    their data sets' folders), tested by McNemar's exact test.
    """
    gain, why = _gain(first, second)
    return Comparison(
        paths=(first.path, second.path),
        accuracy=(_accuracy(first), _accuracy(second)),
        settings=_settings(first, second),
        data=tuple(d for phase in ("train", "validation") if (d := _data(first, second, phase)) is not None),
        gain=gain,
        why_no_gain=why,
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


def _gain(first: RunRecord, second: RunRecord) -> tuple[Effect | None, str]:
    answers = [_answers(run) for run in (first, second)]
    if not all(answers):
        return None, "one of the runs has no validation result with known samples"
    names = [n for n in answers[0] if n in answers[1] and answers[0][n][0] == answers[1][n][0]]
    if not names:
        return None, "the runs have no validation sample in common"
    before, after = (np.array([a[n][1] for n in names], bool) for a in answers)
    value, low, high = paired_difference(before, after)
    return Effect(100 * value, 100 * low, 100 * high, paired_p_value(before, after), 1, len(names)), ""


def _answers(run: RunRecord) -> dict[str, tuple[str, bool]]:
    """Sample name -> (label as given, whether the answer was right), of the last validation pass."""
    last = run.last_validation
    if last is None:
        return {}
    labels = _labels(run, last)
    table = last.samples
    rows = zip(table.sample.tolist(), table.target.tolist(), table.prediction.tolist(), strict=True)
    return {name: (labels[name], target == answer) for s, target, answer in rows if (name := _name(run, s)) in labels}


def _labels(run: RunRecord, one: Pass) -> dict[str, str]:
    """Sample name -> label by its class name, of one pass; samples without name or label are left out."""
    data = run.datasets.get(one.dataset)
    classes = {index: name for name, index in (data.class_to_idx or {}).items()} if data is not None else {}
    rows = zip(one.samples.sample.tolist(), one.samples.target.tolist(), strict=True)
    return {_name(run, s): classes.get(target, str(target)) for s, target in rows if s >= 0 and target >= 0}


def _name(run: RunRecord, sample: int) -> str:
    """A sample's name below the folder of its data set: a copy of the data elsewhere has the same names."""
    if not 0 <= sample < len(run.sample_names):
        return ""
    name = run.sample_names[sample]
    roots = [d.root.rstrip(os.sep) + os.sep for d in run.datasets.values() if d.root]
    return name[max((len(r) for r in roots if name.startswith(r)), default=0) :]


def _data(first: RunRecord, second: RunRecord, phase: Phase) -> DataDifference | None:
    passes = [run.last_train if phase == "train" else run.last_validation for run in (first, second)]
    if passes[0] is None or passes[1] is None:
        return None
    a, b = _labels(first, passes[0]), _labels(second, passes[1])
    common = a.keys() & b.keys()
    changed = sorted(n for n in common if a[n] != b[n])
    alone = sorted(a.keys() ^ b.keys())
    examples = [f"{n}: {a[n]}, then {b[n]}" for n in changed] + [
        f"{n}: {'first' if n in a else 'second'} run only" for n in alone
    ]
    return DataDifference(
        phase, len(common), len(a.keys() - common), len(b.keys() - common), len(changed), tuple(examples[:MAX_EXAMPLES])
    )
