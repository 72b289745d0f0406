"""Paired gains in validation accuracy between two ways of scoring the same samples. No check; several use it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from valgap.stats import paired_difference, paired_p_value
from valgap.types import Evidence, Pass, RunRecord, SampleTable


@dataclass(frozen=True)
class Gain:
    """Difference in accuracy (fractions), its 95 % interval, McNemar's p-value and the number of samples."""

    value: float
    low: float
    high: float
    p_value: float
    n: int

    def evidence(self, name: str) -> Evidence:
        """The gain in points."""
        return Evidence(name, 100 * self.value, 0.0, "points", self.n, 100 * self.low, 100 * self.high)


def between(run: RunRecord, name: str, base: str = "val_eval") -> Gain | None:
    """Gain of one closing re-score over another on the same samples; None where one of them is missing."""
    tables = run.closing.rescores if run.closing is not None else {}
    if name not in tables or base not in tables:
        return None
    return _gain(tables[base], tables[name])


def over_recorded(run: RunRecord, recorded: Pass, rescored: SampleTable | None) -> Gain | None:
    """Gain of a closing re-score over what the pass recorded, on the same samples and weights; None without."""
    if rescored is None or reloaded_since(run, recorded):
        return None
    return _gain(recorded.samples, rescored)


def between_passes(first: Pass, second: Pass) -> Gain | None:
    """Gain of the second recorded pass over the first one on the samples that both know; None without any."""
    return _gain(first.samples, second.samples)


def reloaded_since(run: RunRecord, recorded: Pass) -> bool:
    """Whether other weights were loaded after a pass: closing measurements are then not on those that it saw.

    Those with which the pass began are no others: programs put back what their own validation moved in BatchNorm.
    """
    before = max((p.index for p in run.passes if p.index < recorded.index and p.model == recorded.model), default=-1)
    own = {recorded.index, before} - {-1}
    return any(w.changed and w.after_pass >= recorded.index and w.state_of_pass not in own for w in run.weights_loaded)


def _gain(first: SampleTable, second: SampleTable) -> Gain | None:
    right = {
        int(s): bool(p == t) for s, p, t in zip(first.sample, first.prediction, first.target, strict=True) if s >= 0 and t >= 0
    }
    known = [i for i, s in enumerate(second.sample.tolist()) if s in right and second.target[i] >= 0]
    if not known:
        return None
    before = np.array([right[int(second.sample[i])] for i in known])
    after = np.asarray(second.prediction[known] == second.target[known])
    return Gain(*paired_difference(before, after), paired_p_value(before, after), len(known))
