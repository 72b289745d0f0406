"""Faults of measurement, which no change removes: what the script reports is held against its answers in every re-run.

A number that the answers of a pass do not give could be chance once. Re-runs of other seeds give other answers; where each of
them reports another number than its answers give, in the same direction, it is what the program does. In each re-run the
difference is exact, since both numbers are of the same answers: what the interval is about are the seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from valgap.experiments.arm_result import ArmResult
from valgap.experiments.sequential import quantile
from valgap.types import Case, CaseStages, Check, Effect, Finding, Intervention, RunRecord, Verdict

SEE_AGAIN = Intervention("see_again")
STAGE = "measure"
SUSPECTED = 0.5
# In so many re-runs at least, of different seeds.
LEAST_ARMS = 3


def is_seen_again(treatment: Intervention) -> bool:
    """Whether it is no change, but a look at what the unchanged program reports."""
    return treatment == SEE_AGAIN


def can_be_seen_again(check: Check, finding: Finding) -> bool:
    """Whether it claims that the script reports another accuracy than it has."""
    return check.stage == STAGE and finding.severity_points != 0.0


def seen_again(
    check: Check, arms: Sequence[ArmResult], stages: Sequence[CaseStages | None]
) -> tuple[Verdict, Effect | None, str]:
    """(verdict, by how many points the report is too low, why), from unchanged arms that finished.

    ``stages``: each arm's, held against their references.
    """
    records = [a.record for a in arms if a.record is not None]
    told = [_points(check, record, own) for record, own in zip(records, stages, strict=True)]
    found = np.array([p for p in told if p is not None])
    if len(told) < LEAST_ARMS:
        return "inconclusive", None, f"{len(told)} re-runs are too few to tell it from chance"
    if len(found) < len(told) or not (np.all(found > 0) or np.all(found < 0)):
        return "inconclusive", None, f"seen again in {len(found)} of {len(told)} re-runs"
    half = quantile(len(found) - 1, 0.05) * float(found.std(ddof=1)) / math.sqrt(len(found))
    value, samples = float(found.mean()), min(len(a.correct()) for a in arms)
    effect = Effect(value, value - half, value + half, 0.0, len(found), samples)
    way = "less" if value > 0 else "more"
    told_as = f"each of {len(found)} re-runs reports {way} than its own answers give, by {_span(np.abs(found))} points"
    return "confirmed", effect, told_as


def _points(check: Check, record: RunRecord, stages: CaseStages | None) -> float | None:
    outcome = check.detect(Case(record, stages=stages))
    sure = isinstance(outcome, Finding) and outcome.confidence >= SUSPECTED
    return outcome.severity_points if sure and isinstance(outcome, Finding) else None


def _span(points: np.ndarray) -> str:
    low, high = float(points.min()), float(points.max())
    return f"{low:.1f}" if f"{low:.1f}" == f"{high:.1f}" else f"{low:.1f} to {high:.1f}"
