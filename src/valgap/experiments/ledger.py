"""The joint account of the confirmed causes. Effects interact, so they are shared out by Shapley values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from valgap.experiments.runner import ArmResult
from valgap.stats import shapley_values
from valgap.types import Diagnosis, Effect, Intervention, LedgerLine

UNEXPLAINED = "unexplained"


class Accuracies(Protocol):
    """Where joint treatments are measured."""

    def accuracy(self, treatments: Sequence[Intervention]) -> float: ...


def account(
    diagnosis: Diagnosis,
    lab: Accuracies,
    control: Sequence[ArmResult],
    confirmed: Sequence[tuple[str, Intervention, Effect]],
) -> tuple[LedgerLine, ...]:
    """Lines in points that lead from the run's validation accuracy to what is attainable; rounded so that they sum."""
    if diagnosis.validation is None:
        return ()
    treatment = {name: t for name, t, _ in confirmed}
    known: dict[frozenset[str], float] = {}

    def value(names: frozenset[str]) -> float:
        if names not in known:
            known[names] = lab.accuracy([treatment[n] for n in sorted(names)])
        return known[names]

    lines: list[LedgerLine] = []
    if confirmed:
        if len(confirmed) == 1:
            shares = {confirmed[0][0]: confirmed[0][2].value / 100}
        else:
            shares = shapley_values([n for n, _, _ in confirmed], value)
        for name, _, effect in confirmed:
            share = shares[name]
            if math.isnan(share):
                lines.append(LedgerLine(name, round(effect.value, 1), effect.low, effect.high, "alone: joint arms are missing"))
                continue
            move = 100 * share - effect.value  # the interval of the single effect, around the joint share
            lines.append(LedgerLine(name, round(100 * share, 1), round(effect.low + move, 1), round(effect.high + move, 1)))
    reach = attainable(diagnosis)
    if reach is not None:
        explained = round(100 * diagnosis.validation.value, 1) + sum(line.points for line in lines)
        rest = max(0.0, round(round(100 * reach, 1) - explained, 1))  # the remedies may reach more than the probe
        lines.append(
            LedgerLine(UNEXPLAINED, rest, note=f"up to the {reach:.1%} that a linear probe on the run's features reaches")
        )
    return tuple(lines)


def attainable(diagnosis: Diagnosis) -> float | None:
    """Validation accuracy that the probe on this run's features reaches, 0..1; None where it was not measured."""
    numbers = diagnosis.run.closing.numbers if diagnosis.run.closing is not None else {}
    reached = [numbers[k] for k in ("probe_initial", "probe_final") if k in numbers]
    return max(reached) if reached else None
