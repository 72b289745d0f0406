"""The joint account of the confirmed causes. Effects interact, so they are shared out by Shapley values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from valgap.experiments.scoring import misleads_probe
from valgap.stats import antithetic_orders, paired_effect, sampled_shapley_values, shapley_values
from valgap.types import Diagnosis, Effect, Finding, Intervention, LedgerLine

UNEXPLAINED = "unexplained"
# Exact Shapley values need 2^n joint treatments; with more causes some orders are sampled.
MAX_EXACT = 6
SAMPLED_ORDERS = 8
SUSPECTED = 0.5

Correct = Sequence[dict[str, bool]] | None
Joint = npt.NDArray[np.float64]


class Experiment(Protocol):
    """Where joint treatments are measured."""

    def correct(self, treatments: Sequence[Intervention]) -> Correct:
        """Per seed, by sample name, whether the answer is right; None where an arm failed."""


@dataclass(frozen=True)
class Confirmed:
    """A confirmed cause with its treatment and its effect alone."""

    name: str
    treatment: Intervention
    effect: Effect


def account(diagnosis: Diagnosis, lab: Experiment, confirmed: Sequence[Confirmed]) -> tuple[LedgerLine, ...]:
    """Lines in points that lead from the run's validation accuracy to what is attainable; rounded so that they sum.

    Lines of kind ``measurement`` come first and lead from what the script reports to that accuracy.
    """
    if diagnosis.validation is None:
        return ()
    lines = shared_out(lab, confirmed)
    reach = None if any(misleads_probe(c.treatment) for c in confirmed) else attainable(diagnosis)
    if reach is not None:
        explained = round(100 * diagnosis.validation.value, 1) + sum(line.points for line in lines)
        rest = round(round(100 * reach, 1) - explained, 1)
        probe = f"the {reach:.1%} that a linear probe on the run's features reaches"
        note = f"up to {probe}" if rest > 0 else f"the remedies reach no less than {probe}"
        lines.append(LedgerLine(UNEXPLAINED, max(0.0, rest), note=note, kind="rest"))
    return (*measurement_lines(diagnosis), *lines)


def measurement_lines(diagnosis: Diagnosis) -> list[LedgerLine]:
    """What the script's own report of its accuracy adds or takes away, apart from anything that the model does."""
    lines = []
    for judged in diagnosis.findings:
        finding = judged.outcome
        if judged.check.name != "miscomputed_metric" or not isinstance(finding, Finding) or finding.confidence < SUSPECTED:
            continue
        points = round(finding.severity_points, 1)
        lines.append(LedgerLine(judged.check.name, points, note=finding.summary, kind="measurement"))
    return lines


def shared_out(lab: Experiment, confirmed: Sequence[Confirmed]) -> list[LedgerLine]:
    """One line per confirmed cause: its effect, or its share where there are several."""
    if len(confirmed) == 1:
        return [_line(confirmed[0].name, confirmed[0].effect)]
    shares = _Shares(lab, confirmed).shares() if confirmed else {}
    if shares is None:
        return [_line(c.name, c.effect, "alone: joint re-runs are missing") for c in confirmed]
    return [_line(c.name, shares[c.name]) for c in confirmed]


def _line(name: str, effect: Effect, note: str = "") -> LedgerLine:
    return LedgerLine(name, round(effect.value, 1), round(effect.low, 1), round(effect.high, 1), note)


class _Shares:
    """Shapley values of the confirmed causes, per seed and validation sample where all arms share their samples."""

    def __init__(self, lab: Experiment, confirmed: Sequence[Confirmed]) -> None:
        self.lab = lab
        self.treatment = {c.name: c.treatment for c in confirmed}
        self.effect = {c.name: c.effect for c in confirmed}
        self.names = list(self.treatment)
        self._known: dict[frozenset[str], Correct] = {}

    def measured(self, names: frozenset[str]) -> Correct:
        """The answers with these causes removed."""
        if names not in self._known:
            self._known[names] = self.lab.correct([self.treatment[n] for n in self.names if n in names])
        return self._known[names]

    def shares(self) -> dict[str, Effect] | None:
        """The effect that each cause has its share in; None where too many arms failed."""
        exact = len(self.names) <= MAX_EXACT
        orders = antithetic_orders(self.names, SAMPLED_ORDERS)
        # The first two orders give an account even where the time does not suffice for the rest.
        for order in orders[:2] if exact else orders:
            for k in range(len(order) + 1):
                self.measured(frozenset(order[:k]))
        if exact:
            for size in range(len(self.names) + 1):
                for some in itertools.combinations(self.names, size):
                    self.measured(frozenset(some))
            orders = list(itertools.permutations(self.names))
        by_sample = self._by_sample()
        if by_sample is not None:
            value: Callable[[frozenset[str]], Joint | None] = by_sample.get
        else:
            value = self._accuracy
        whole = (
            all(
                value(frozenset(s)) is not None for k in range(len(self.names) + 1) for s in itertools.combinations(self.names, k)
            )
            if exact
            else False
        )
        found = shapley_values(self.names, lambda s: _given(value(s))) if whole else sampled_shapley_values(orders, value)
        if found is None:
            return None
        return {n: self._effect(n, found[n], by_sample is not None) for n in self.names}

    def _by_sample(self) -> dict[frozenset[str], Joint] | None:
        """(S, N) answers of every joint treatment on the samples that all share; None where samples are left out."""
        if any(t.name == "score_without" for t in self.treatment.values()):
            return None
        tables = {k: v for k, v in self._known.items() if v is not None}
        common = sorted(set.intersection(*(set(row) for table in tables.values() for row in table))) if tables else []
        if not common:
            return None
        return {k: np.array([[row[n] for n in common] for row in table], np.float64) for k, table in tables.items()}

    def _accuracy(self, names: frozenset[str]) -> Joint | None:
        table = self._known.get(names)
        if table is None or not all(table):
            return None
        return np.array([[np.mean(list(row.values()))] for row in table])

    def _effect(self, name: str, share: Joint, by_sample: bool) -> Effect:
        alone = self.effect[name]
        if by_sample:
            value, low, high, p_value = paired_effect(share)
            return Effect(100 * value, 100 * low, 100 * high, p_value, *share.shape)
        value = 100 * float(share.mean())
        move = value - alone.value  # the interval of the effect alone, around the share
        return Effect(value, alone.low + move, alone.high + move, alone.p_value, alone.seeds, alone.samples)


def _given(value: Joint | None) -> Joint:
    assert value is not None
    return value


def attainable(diagnosis: Diagnosis) -> float | None:
    """Validation accuracy that the probe on this run's features reaches, 0..1; None where it was not measured."""
    numbers = diagnosis.run.closing.numbers if diagnosis.run.closing is not None else {}
    reached = [numbers[k] for k in ("probe_initial", "probe_final") if k in numbers and not math.isnan(numbers[k])]
    return max(reached) if reached else None
