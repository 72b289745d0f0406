"""The lines of one process's part of a record: read up to where they are cut off, and refused where they are none of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from valgap.errors import RecordError
from valgap.record.encoding import EVENTS_FILE, SCHEMA


def has_header(file: Path) -> bool:
    """Whether a part has more than half of its first line: a process may be killed while it writes that."""
    with file.open("rb") as stream:
        return stream.readline().endswith(b"\n")


def read_events(folder: Path, file: Path) -> tuple[list[dict[str, Any]], str | None]:
    """(its events, arrays still encoded; what is damaged, in words, or None). Raises RecordError for what is no record."""
    if not file.is_file():
        what = "no such folder" if not folder.exists() else f"it has no {EVENTS_FILE}"
        raise RecordError(f"{folder} is no run directory ({what}): give the folder that `valgap run` printed")
    events: list[dict[str, Any]] = []
    damaged = None
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                event = json.loads(line)
                if not line.endswith(b"\n") or not isinstance(event, dict):
                    raise ValueError("cut off")
            except (ValueError, RecursionError):
                damaged = f"line {number} is cut off or damaged; what follows it is left out"
                break
            if not events:
                _check_header(folder, event)
            events.append(event)
    if not events:
        raise RecordError(f"{file} holds no header: this is no record of valgap")
    return events, damaged


def ended_in(events: Sequence[Mapping[str, Any]]) -> list[int]:
    """Numbers of the passes that have ended, in order."""
    return sorted({int(e["pass"]) for e in events if e.get("t") == "pass_end"})


def ended_passes(events: list[dict[str, Any]], most: int | None = None) -> list[dict[str, Any]]:
    """The events up to the first pass that goes on: without what was seen in it, or printed since it began, and in later ones.

    Where that is the first pass of all, what is there of it stays. ``most``: so many passes that have ended at most.
    """
    ended = ended_in(events)
    going = {int(e["pass"]) for e in events if e.get("t") in ("pass_begin", "part")} - set(ended)
    beyond = ended[most:] if most is not None else []
    if not going and not beyond:
        return events
    first = min((*going, *beyond))
    last = first if first in going and not any(number < first for number in ended) else first - 1

    def counts(event: Mapping[str, Any]) -> bool:
        if event.get("t") in ("printed", "scored"):
            return bool(int(event["after_pass"]) <= last)
        return "pass" not in event or int(event["pass"]) <= last

    return [e for e in events if counts(e)]


def _check_header(folder: Path, event: Mapping[str, Any]) -> None:
    if event.get("t") != "header" or not isinstance(event.get("schema"), int):
        raise RecordError(f"{folder / EVENTS_FILE} does not begin with a header: this is no record of valgap")
    if event["schema"] > SCHEMA:
        raise RecordError(
            f"{folder} was written with record schema {event['schema']}, this valgap reads up to {SCHEMA}: update valgap"
        )


@contextmanager
def edited_is_said(folder: Path) -> Iterator[None]:
    """What goes wrong within is the user's error: events are not as we write them."""
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise RecordError(
            f"{folder / EVENTS_FILE} is not as valgap writes it ({type(error).__name__}: {error}); was it edited by hand?"
        ) from error
