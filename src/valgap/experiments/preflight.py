"""A program run once in the sandbox, cut short, before it costs hours: its record, and how it ended."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valgap.experiments.cut_arm import RESULT_FILE, SPEC_FILE, STATUS_FILE, CutSpec
from valgap.experiments.janitor import GROUP, Janitor
from valgap.experiments.kernel.guards import Guards
from valgap.experiments.runner import arm_variables, last_line
from valgap.experiments.temporary import temporary_folder

POLL_S = 0.1
# A program that does not come to its first batch in this time is not waited for.
START_S = 900.0
# Beyond the time that it was given: a batch may take long, and so may what comes after the epoch.
PATIENCE = 3.0
END_S = 20.0
TAIL_LINES, TAIL_BYTES = 12, 64 << 10


@dataclass(frozen=True)
class Rehearsal:
    """How the shortened program ended."""

    record: Path
    status: int  # its exit status
    error: str | None  # in one line; None where it ended well
    place: tuple[str, int] | None  # file and line of its own where it failed
    problem: str | None  # why nothing can be said of it; None where something can
    interrupted: bool  # by Ctrl-C
    guards: Guards | None  # what the kernel kept it from; None where its process did not tell
    tail: str  # the last lines that it printed
    seconds: float  # until its process ended

    @property
    def failed(self) -> bool:
        return self.status != 0 and not self.interrupted


def rehearse(
    program: Sequence[str],
    record: Path,
    steps: int,
    images: int,
    seconds: float,
    progress: Callable[[str], None] = lambda text: None,
) -> Rehearsal:
    """Run ``SCRIPT ARGS`` or ``-m MODULE ARGS`` in the sandbox, cut short, into a run directory.

    Ctrl-C ends the program, and leaves a record that can be read.

    Args:
        steps: optimizer steps of a training walk at most.
        images: of a validation at most.
        seconds: given beyond the program's own start.
        progress: told where the program is, a few times a second.
    """
    module = program[1] if program[0] == "-m" else None
    script, arguments = (None, program[2:]) if module is not None else (program[0], program[1:])
    janitor = Janitor()
    folder, temporary = (temporary_folder(janitor) for _ in range(2))
    began = time.time()
    spec = CutSpec(script, module, list(arguments), str(record.resolve()), steps, images, seconds, began)
    (folder / "scratch").mkdir()
    (folder / SPEC_FILE).write_text(json.dumps(spec.to_json()))
    output = folder / "output.txt"
    try:
        with output.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "valgap.experiments.cut_arm", str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=arm_variables(folder, temporary),
                start_new_session=True,
            )
        janitor.knows(GROUP, process.pid)
        why = _wait(process, folder, seconds, progress)
        return _rehearsal(record, folder, process.returncode, why, time.time() - began)
    finally:
        janitor.leave()
        for one in (folder, temporary):
            shutil.rmtree(one, ignore_errors=True)


def _wait(process: subprocess.Popen[bytes], folder: Path, seconds: float, progress: Callable[[str], None]) -> str:
    """Wait for the end, and bring it about where that takes too long; returns why it was: "", "time" or "interrupted"."""
    status, first, text = folder / STATUS_FILE, 0.0, ""
    begun = time.monotonic()
    try:
        while process.poll() is None:
            now = time.monotonic()
            text = (status.read_text() if status.is_file() else "") or text
            first = first or (now if text else 0.0)
            progress(text or "the script starts")
            if now - (first or begun) > (PATIENCE * seconds + END_S if first else START_S):
                _end(process)
                return "time"
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        _end(process)
        return "interrupted"
    return ""


def _end(process: subprocess.Popen[bytes]) -> None:
    """As Ctrl-C does at first, so that the record has an end; then for good."""
    for how, wait_s in ((signal.SIGINT, END_S), (signal.SIGTERM, 2.0), (signal.SIGKILL, END_S)):
        try:
            os.killpg(process.pid, how)
            process.wait(wait_s)
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            process.wait(END_S)
        break


def _rehearsal(record: Path, folder: Path, code: int, why: str, seconds: float) -> Rehearsal:
    file = folder / RESULT_FILE
    told: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    status = int(told.get("status", code if code > 0 else 128 - code))
    error = told.get("error")
    if why == "time":
        error = f"it was ended after {seconds:.0f} s, several times what it was given"
    elif not told:
        ended = f"signal {-code}" if code < 0 else f"status {code}"
        error = f"its process ended with {ended}: {last_line(folder / 'output.txt')}"
    place = told.get("place")
    return Rehearsal(
        record=record,
        status=status,
        error=str(error) if error is not None and status != 0 else None,
        place=(str(place[0]), int(place[1])) if place else None,
        problem=told.get("problem"),
        interrupted=why == "interrupted" or (bool(told.get("interrupted")) and why != "time"),
        guards=Guards.from_json(told["guards"]) if "guards" in told else None,
        tail=_tail(folder / "output.txt"),
        seconds=seconds,
    )


def _tail(file: Path) -> str:
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - TAIL_BYTES))
        text = stream.read().decode(errors="replace")
    return "\n".join(text.strip().splitlines()[-TAIL_LINES:])
