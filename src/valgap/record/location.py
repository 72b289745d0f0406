"""Where run directories go: ``runs/DATE-TIME-NAME``, with ``runs/last`` pointing at the newest."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

from valgap.errors import RecordError
from valgap.record.encoding import EVENTS_FILE, PARTS
from valgap.record.processes import ask_for

RUNS = "runs"
LAST = "last"
LIVE = "live.jsonl"  # the warnings of a run that is watched, one JSON object a line
POLL_S = 0.05
LAST_BYTES = 4096  # hold a part's last line, and what closing measurements that were skipped add to it


def new_run_directory(name: str) -> Path:
    """A fresh ``runs/DATE-TIME-NAME`` below the working directory, created; ``runs/last`` points at it.

    Raises:
        RecordError: it cannot be created.
    """
    safe = re.sub(r"[^\w.-]+", "_", name)[:60] or "run"
    base = Path(RUNS) / f"{time.strftime('%Y%m%d-%H%M%S')}-{safe}"
    try:
        Path(RUNS).mkdir(exist_ok=True)
        folder = base
        number = 2
        while True:
            try:
                folder.mkdir()
                break
            except FileExistsError:
                folder = base.with_name(f"{base.name}-{number}")
                number += 1
    except OSError as error:
        raise RecordError(f"cannot create {base}: {error.strerror}; choose another place with --out") from error
    _point_last(folder)
    return folder


def _point_last(folder: Path) -> None:
    link = folder.parent / LAST
    try:
        if link.is_symlink():
            link.unlink()
        if not link.exists():
            link.symlink_to(folder.name, target_is_directory=True)
    except OSError:
        pass  # a file system without links: the run is still named on the screen


def discard(folder: Path) -> None:
    """Remove a run directory in which nothing but an empty record was written, and what pointed at it."""
    (folder / EVENTS_FILE).unlink(missing_ok=True)
    link = folder.parent / LAST
    try:
        if link.is_symlink() and link.readlink() == Path(folder.name):
            link.unlink()
        folder.rmdir()
        if folder.parent.name == RUNS:
            folder.parent.rmdir()
    except OSError:
        pass  # something else lies there: it stays


def part_files(folder: Path) -> list[Path]:
    """The files of a run's further processes, in the order of their names."""
    return sorted((folder / PARTS).glob("*.jsonl"))


def wait_for_parts(folder: Path, most_s: float) -> None:
    """Wait until the processes of a job that end with this one have written their last line; not for those that are gone."""
    until = time.monotonic() + most_s
    while time.monotonic() < until and any(_is_open(f) for f in part_files(folder)):
        time.sleep(POLL_S)


def _is_open(file: Path) -> bool:
    with file.open("rb") as stream:
        header = stream.readline()
        stream.seek(max(0, file.stat().st_size - LAST_BYTES))
        if b'"t":"end"' in stream.read():
            return False
    try:
        pid = json.loads(header)["pid"]
        ask_for(pid)
    except (ValueError, KeyError, TypeError, OSError):
        return False  # gone, or on another machine
    return True


def has_parts(folder: Path) -> bool:
    """Whether a process beside the first one has recorded anything."""
    return bool(part_files(folder))
