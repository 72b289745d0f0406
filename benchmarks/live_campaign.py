"""The campaign's programs for benchmarks/live.py: those whose fault costs something and shows early, and healthy ones."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from campaign.data import prepare
from campaign.harness import arguments, write
from campaign.plan import Program
from preflight import chosen

HALF = "calibration"
# As `valgap run --live --closing 0`, but for the process that judges.
RECORD = """
import sys
from pathlib import Path
from valgap.seams.hosting.session import FIRST_BATCHES, Session
Session._watch_live = lambda self, recorder: setattr(recorder, "early", FIRST_BATCHES)
from valgap.cli import launch
launch.run(launch.Call(sys.argv[2], None, sys.argv[3:], Path(sys.argv[1]), 0.0))
"""


def programs_of(data: Path, keep: Path, limit: int) -> Iterator[tuple[str, Callable[[], Path]]]:
    """(name, what records it and returns the run directory) of so many faulty programs and half as many healthy ones."""
    prepare(data.resolve(), keep / "data")
    for program in chosen(HALF, limit, limit // 2):
        kinds = "+".join(k.name for k in program.kinds) or program.base.style.name
        sort = "healthy" if program.healthy else "faulty"
        yield (
            f"{sort} campaign {program.name} {kinds} {'+'.join(program.stages)}",
            lambda program=program: recorded(program, keep),
        )  # type: ignore[misc]


def recorded(program: Program, keep: Path) -> Path:
    """The record of one program."""
    out = keep.resolve() / "record"
    shutil.rmtree(out, ignore_errors=True)
    where = Path(tempfile.mkdtemp())
    try:
        file = write(program.draft, where / "program", program.base.seed, probed=False)
        command = [sys.executable, "-c", RECORD, str(out), *arguments(program, file, keep.resolve())]
        subprocess.run(command, cwd=where, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        return out
    finally:
        shutil.rmtree(where)
