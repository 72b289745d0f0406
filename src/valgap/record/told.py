"""The warnings of a running program: RUN/live.jsonl, one JSON object a line, appended when a cause is first suspected."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from valgap.record.location import LIVE
from valgap.types import LiveWarning


def tell(folder: Path, warning: LiveWarning) -> None:
    """Append a warning, in one write."""
    append(folder, asdict(warning))


def append(folder: Path, body: Mapping[str, Any]) -> None:
    """Append a line, in one write."""
    line = (json.dumps(body, ensure_ascii=True) + "\n").encode()
    handle = os.open(folder / LIVE, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
    try:
        os.write(handle, line)
    finally:
        os.close(handle)


def told(folder: Path) -> list[LiveWarning]:
    """The warnings so far; lines that are none are passed over."""
    file = folder / LIVE
    found = []
    for line in file.read_text(errors="replace").splitlines() if file.is_file() else ():
        try:
            found.append(_warning(json.loads(line)))
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
    return found


def _warning(body: Any) -> LiveWarning:
    known = {f.name: body[f.name] for f in fields(LiveWarning)}
    texts = ("code", "name", "stage", "what", "remedy")
    if not all(isinstance(known[n], str) for n in texts) or not isinstance(known["why"], list):
        raise TypeError("that is no warning")
    numbers = {"epoch": int(known["epoch"]), "pass_index": int(known["pass_index"])}
    shares = {"time": float(known["time"]), "confidence": float(known["confidence"])}
    return LiveWarning(**{**known, **numbers, **shares, "why": tuple(map(str, known["why"]))})
