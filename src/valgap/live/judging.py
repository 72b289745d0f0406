"""What a running program is suspected of, by its record so far."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

from valgap.diagnosis import judge_running
from valgap.errors import NothingRecordedError
from valgap.record.reader import read_running
from valgap.stages import SUSPECTED
from valgap.types import Crashed, Evidence, Finding, LiveWarning, RunRecord

MOST_EVIDENCE = 3


class CheckCrashedError(RuntimeError):
    """A check failed; its traceback is the message."""


def warnings_of(folder: Path, known: Collection[str] = ()) -> list[LiveWarning]:
    """Of each cause that is suspected now and whose code is not ``known``, what is to be told; the likeliest first.

    Raises:
        RecordError: the record cannot be read.
        CheckCrashedError: nothing was found, and a check failed.
    """
    return warnings_in(read_running(folder), known)


def warnings_in(record: RunRecord, known: Collection[str] = ()) -> list[LiveWarning]:
    """The same of a record that was read."""
    try:
        judged = judge_running(record)
    except NothingRecordedError:
        return []
    now, last = time.time(), record.passes[-1]
    epoch = sum(p.phase == "train" for p in record.passes)
    found = []
    for one in judged:
        outcome = one.outcome
        if not isinstance(outcome, Finding) or outcome.confidence < SUSPECTED or one.check.code in known:
            continue
        why = tuple(_line(e) for e in outcome.evidence if not e.assumed)[:MOST_EVIDENCE]
        stage, sure = str(one.check.stage), round(outcome.confidence, 3)
        found.append(
            LiveWarning(now, epoch, last.index, one.check.code, one.check.name, stage, sure, outcome.summary, why, outcome.remedy)
        )
    crashed = [j.outcome for j in judged if isinstance(j.outcome, Crashed)]
    if crashed and not found:
        raise CheckCrashedError(crashed[0].traceback)
    return found


def _line(evidence: Evidence) -> str:
    """One piece of evidence: name, value, interval, reference, n."""

    def text(value: float | str | None) -> str:
        return value if isinstance(value, str) else f"{value:.4g}" if value is not None else "unknown"

    unit = f" {evidence.unit}" if evidence.unit else ""
    line = f"{evidence.name}: {text(evidence.value)}{unit}"
    if evidence.low is not None and evidence.high is not None:
        line += f" ({text(evidence.low)} .. {text(evidence.high)})"
    if evidence.reference is not None:
        line += f", in a sound run {text(evidence.reference)}{unit}"
    return line + (f"  [n = {evidence.n}]" if evidence.n is not None else "")
