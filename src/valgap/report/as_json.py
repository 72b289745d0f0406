"""A Diagnosis as the JSON object that other programs may rely on (schema 1)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from valgap.types import Clear, Crashed, Diagnosis, Effect, Finding, Judged, NotApplicable, RankInfo, StageLine

SCHEMA = 1


def diagnosis_to_json(diagnosis: Diagnosis, lists: Mapping[str, tuple[Path, int]] | None = None) -> dict[str, Any]:
    """JSON-ready object: fractions 0..1, points are percentage points of validation accuracy.

    ``lists`` holds, by the code of each finding whose subjects were cut, the file with all of them and their number.
    """
    val = diagnosis.validation
    body = {
        "schema": SCHEMA,
        "run": diagnosis.run.path,
        "script": str(diagnosis.run.header.get("script", "")),
        "record": {
            "stopped": diagnosis.run.stopped,
            "exit_status": diagnosis.run.exit_status,
            "seen_whole": not diagnosis.run.unseen,
            "unseen": list(diagnosis.run.unseen),
            "processes": [_process(r) for r in diagnosis.run.ranks],
        },
        "accuracy": {
            "train_reported": diagnosis.train_reported,
            "train_rescored": diagnosis.train_rescored,
            "train_reported_interval": asdict(diagnosis.reported) if diagnosis.reported is not None else None,
            "train_rescored_interval": asdict(diagnosis.rescored) if diagnosis.rescored is not None else None,
            "val": asdict(val) if val is not None else None,
        },
        "unseen": list(diagnosis.unseen),
        "unmeasured": diagnosis.unmeasured or None,
        "without_finding": "".join(diagnosis.without_finding),
        "findings": [
            _finding(j, j.outcome) | _whole_list((lists or {}).get(j.check.code))
            for j in diagnosis.judged
            if isinstance(j.outcome, Finding)
        ],
        "clear": [_clear(j, j.outcome) for j in diagnosis.judged if isinstance(j.outcome, Clear)],
        "not_applicable": [
            {**_named(j), "missing": j.outcome.missing} for j in diagnosis.judged if isinstance(j.outcome, NotApplicable)
        ],
        "crashed": [{**_named(j), "traceback": j.outcome.traceback} for j in diagnosis.judged if isinstance(j.outcome, Crashed)],
        "loss": asdict(diagnosis.loss) if diagnosis.loss is not None else None,
        "ledger": [asdict(line) for line in diagnosis.ledger],
        "stages": [_stage(line) for line in diagnosis.stages],
        "gap": [asdict(part) for part in diagnosis.gap],
        "proposals": [asdict(p) for p in diagnosis.proposals],
        "experiments": asdict(diagnosis.experiments) if diagnosis.experiments is not None else None,
    }
    cleaned: dict[str, Any] = finite(body)
    return cleaned


def _process(rank: RankInfo) -> dict[str, Any]:
    return {
        "name": rank.name,
        "rank": rank.rank,
        "world_size": rank.world_size,
        "device": next((p.device for p in rank.passes if p.device), None),
        "pid": rank.pid,
        "parent": rank.parent,
        "how": rank.how,
        "passes": len(rank.passes),
        "exit_status": rank.exit_status,
        "stopped": rank.stopped,
    }


def _named(judged: Judged) -> dict[str, Any]:
    return {"code": judged.check.code, "name": judged.check.name, "stage": judged.check.stage}


def _finding(judged: Judged, finding: Finding) -> dict[str, Any]:
    return {
        **_named(judged),
        "verdict": judged.verdict,
        "rests_on": judged.rests_on or None,
        "verdicts": {"points": judged.points_verdict, "nats": judged.nats_verdict},
        "summary": finding.summary,
        "severity_points": finding.severity_points,
        "confidence": finding.confidence,
        "effect_points": _effect(judged.effect) if judged.effect is not None else None,
        "effect_nats": _nats(judged.effect) if judged.effect is not None else None,
        "reason": judged.reason,
        "evidence": [asdict(e) for e in finding.evidence],
        "subjects": list(finding.subjects),
        "ranking": [asdict(r) for r in finding.ranking],
        "remedy": finding.remedy,
    }


def _whole_list(whole: tuple[Path, int] | None) -> dict[str, Any]:
    return {} if whole is None else {"subjects_total": whole[1], "subjects_file": str(whole[0])}


def _effect(effect: Effect) -> dict[str, Any]:
    return {k: v for k, v in asdict(effect).items() if k not in ("nats", "nats_p_value")}


def _nats(effect: Effect) -> dict[str, Any] | None:
    return {**asdict(effect.nats), "p_value": effect.nats_p_value} if effect.nats is not None else None


def _clear(judged: Judged, clear: Clear) -> dict[str, Any]:
    return {
        **_named(judged),
        "summary": clear.summary,
        "evidence": [asdict(e) for e in clear.evidence],
        "ranking": [asdict(r) for r in clear.ranking],
    }


def _stage(line: StageLine) -> dict[str, Any]:
    return {
        "stage": line.stage,
        "points": asdict(line.points) if line.points is not None else None,
        "nats": asdict(line.nats) if line.nats is not None else None,
        "verdict": line.verdict,
        "confidence": line.confidence,
        "proved": line.proved,
        "causes": list(line.causes),
        "summary": line.summary,
        "missing": line.missing,
        "evidence": [asdict(e) for e in line.evidence],
    }


def finite(value: Any) -> Any:
    """The same with numpy numbers as Python's, and NaN and infinities as null."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
