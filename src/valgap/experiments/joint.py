"""What each of several causes has its share in, where their effects interact: Shapley values over stages, opened into causes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from valgap.experiments.verdicts import nats
from valgap.stats import grouped_orders, paired_effect, sampled_shapley_values
from valgap.types import Effect, Intervention, Measured, Stage

# Exact values need up to 2^n joint treatments; with more causes some orders are sampled.
MAX_EXACT = 6
SAMPLED_ORDERS = 8

# Of one validation sample: 1 if it is right, and its bounded loss in nats, nan where it is not known.
Answer = tuple[float, float]
Answers = Sequence[dict[str, Answer]] | None
Values = npt.NDArray[np.float64]  # (2, S, N): right, and loss with its sign turned, so that more is better


class Experiment(Protocol):
    """Where joint treatments are measured."""

    def answers(self, treatments: Sequence[Intervention], among: Sequence[Intervention] = ()) -> Answers:
        """Per seed, by sample name, the answer; None where an arm failed. ``among``: all whose sets are compared."""


@dataclass(frozen=True)
class Confirmed:
    """A confirmed cause with its treatment, its effect alone and the stage that it sits in."""

    name: str
    treatment: Intervention
    effect: Effect
    stage: Stage | None = None


class Joint:
    """The shares of confirmed causes, per seed and validation sample where all arms share their samples.

    Stages share the whole among them by Shapley values, and the causes of a stage share what it has (Owen values): so the
    lines of the causes add up to those of the stages, and these to the whole.
    """

    def __init__(self, lab: Experiment, confirmed: Sequence[Confirmed]) -> None:
        self.lab = lab
        self.confirmed = {c.name: c for c in confirmed}
        self.names = list(self.confirmed)
        self._known: dict[frozenset[str], Answers] = {}
        self._by_sample = True
        self._shares: dict[str, Values] | None = self._measured_shares()

    def share(self, names: Sequence[str]) -> Effect | None:
        """What these causes have together; None where too many arms failed."""
        if len(self.names) == 1 and names:
            return self.confirmed[names[0]].effect
        if self._shares is None:
            return self.confirmed[names[0]].effect if len(names) == 1 else None
        found: Values = sum((self._shares[n] for n in names), np.zeros(()))
        right, fallen = found[0], found[1]
        known = bool(np.isfinite(fallen).all())
        # Where one of them needs long arms, all of them have had some.
        trained = max(c.effect.trained for c in self.confirmed.values())
        if self._by_sample:
            value, low, high, p_value = paired_effect(right)
            seeds, samples = right.shape
            fall = nats(fallen) if known else None
            return Effect(100 * value, 100 * low, 100 * high, p_value, seeds, samples, fall, trained=trained)
        alone = [self.confirmed[n].effect for n in names]
        value, first = 100 * float(right.mean()), alone[0]
        move = value - sum(e.value for e in alone)  # the intervals of the effects alone, around the share
        low, high = sum(e.low for e in alone) + move, sum(e.high for e in alone) + move
        fall = _moved([e.nats for e in alone], float(fallen.mean())) if known else None
        return Effect(value, low, high, first.p_value, first.seeds, first.samples, fall, trained=trained)

    @property
    def complete(self) -> bool:
        """Whether the shares rest on joint re-runs, as far as these are needed."""
        return len(self.names) == 1 or self._shares is not None

    def _measured(self, names: frozenset[str]) -> Answers:
        """The answers with these causes removed."""
        if names not in self._known:
            removed = [self.confirmed[n].treatment for n in self.names if n in names]
            self._known[names] = self.lab.answers(removed, [c.treatment for c in self.confirmed.values()])
        return self._known[names]

    def _measured_shares(self) -> dict[str, Values] | None:
        if len(self.names) < 2:
            return None
        exact = len(self.names) <= MAX_EXACT
        orders = grouped_orders(self._groups(), math.factorial(MAX_EXACT) if exact else SAMPLED_ORDERS)
        # The first order and its reverse give an account even where the time does not suffice for the rest.
        for order in (orders[0], orders[0][::-1], *orders):
            for k in range(len(order) + 1):
                self._measured(frozenset(order[:k]))
        by_sample = self._on_shared_samples()
        self._by_sample = by_sample is not None
        return sampled_shapley_values(orders, by_sample.get if by_sample is not None else self._means)

    def _groups(self) -> list[list[str]]:
        """The causes by stage, each stage where its first cause stands."""
        groups: dict[str, list[str]] = {}
        for name, one in self.confirmed.items():
            groups.setdefault(one.stage or f"of {name}", []).append(name)
        return list(groups.values())

    def _on_shared_samples(self) -> dict[frozenset[str], Values] | None:
        """The values of every joint treatment on the samples that all share; None where samples are left out."""
        if any(c.treatment.name == "score_without" for c in self.confirmed.values()):
            return None
        tables = {k: v for k, v in self._known.items() if v is not None}
        common = sorted(set.intersection(*(set(row) for table in tables.values() for row in table))) if tables else []
        return {k: _values([[row[n] for n in common] for row in table]) for k, table in tables.items()} if common else None

    def _means(self, names: frozenset[str]) -> Values | None:
        table = self._known.get(names)
        if table is None or not all(table):
            return None
        means = [np.mean(list(row.values()), axis=0) for row in table]
        return _values([[(m[0], m[1])] for m in means])


def _values(rows: Sequence[Sequence[Answer]]) -> Values:
    """(2, S, N) of S rows of N answers."""
    return np.asarray(np.moveaxis(np.array(rows, np.float64), 2, 0) * np.array([1.0, -1.0])[:, None, None])


def _moved(alone: Sequence[Measured | None], value: float) -> Measured | None:
    known = [m for m in alone if m is not None]
    if len(known) < len(alone):
        return None
    low, high = (sum(getattr(m, end) - m.value for m in known) for end in ("low", "high"))
    return Measured(value, value + low, value + high)
