"""The process of a preflight: a program in the sandbox, cut short. Run as ``python -m valgap.experiments.cut_arm FOLDER``.

Imports neither torch nor numpy before the program does, like the recording itself.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valgap.experiments.overlay import GONE
from valgap.experiments.sandbox import Sandbox
from valgap.seams.hosting import host
from valgap.seams.hosting.session import Session

if TYPE_CHECKING:
    from valgap.seams.acting.shortening import Shortening

RESULT_FILE, SPEC_FILE, STATUS_FILE, WORLD = "result.json", "spec.json", "status", "world"
# Closing measurements have this share of the time that the program was given beyond its own start.
CLOSING_SHARE = 0.2
TELL_S = 0.2
MOST_FILES = 200


@dataclass(frozen=True)
class CutSpec:
    """The program, and how short it is cut."""

    script: str | None
    module: str | None
    arguments: list[str]
    record: str  # the run directory, absolute
    steps: int
    images: int
    seconds: float
    began: float  # time.time() at the start of its process

    def to_json(self) -> dict[str, Any]:
        """As it is written for the process."""
        return asdict(self)


class Status:
    """Where the program is, in a line that the other process shows."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._told = 0.0

    def __call__(self, text: str) -> None:
        """Write the line, at most a few times a second."""
        now = time.monotonic()
        if now - self._told >= TELL_S:
            self._told = now
            self._file.write_text(text)


def run(spec: CutSpec, folder: Path) -> int:
    """Run the program into its record, and write result.json beside the spec. Returns its exit status."""
    name = spec.module or str(spec.script)
    target = host.module_target(name, spec.arguments) if spec.module else host.script_target(name, spec.arguments)
    record, scratch = Path(spec.record), folder / "scratch"
    status_file = Status(folder / STATUS_FILE)
    session = Session(record, target.argv, name, spec.module, make_shortening=lambda: _shortening(spec, status_file))
    sandbox = Sandbox(scratch, (folder, record, Path(tempfile.gettempdir())))
    guards = sandbox.enter()
    ending = host.execute(target, session)
    if ending.elsewhere:
        ending.leave()
    cut = session.shortening
    with ending.once_more():
        if cut is not None:
            told = cut.finish()
            ended_by = (cut.reason or "itself") if ending.status == 0 else "failure"
            files = written_files(scratch / WORLD)
            session.writer.write("shortened", {**told, "ended_by": ended_by, "files": files, "gpu_bytes": _gpu_bytes()})
        seconds = session.finish(ending.status, ending.error)
        status_file("measurements on the trained model")
        passes = session.recorder.passes.count if session.recorder is not None else 0
        share = CLOSING_SHARE * spec.seconds / max(seconds, 0.1) if ending.status == 0 and passes else 0.0
        session.close(seconds, share)
    result = {
        "status": ending.status,
        "error": ending.error,
        "place": list(ending.place) if ending.place is not None else None,
        "interrupted": ending.interrupted,
        "problem": session.problem,
        "guards": asdict(guards),
    }
    (folder / RESULT_FILE).write_text(json.dumps(result))
    return ending.status


def written_files(world: Path) -> list[tuple[str, int]]:
    """(path where it would be, bytes) of what the program wrote, the largest first."""
    found = []
    for folder, _, names in os.walk(world):
        for name in names:
            file = Path(folder) / name
            if file.is_file() and not file.is_symlink() and not name.startswith(GONE):
                found.append((f"/{file.relative_to(world)}", file.stat().st_size))
    return sorted(found, key=lambda f: -f[1])[:MOST_FILES]


def _gpu_bytes() -> int | None:
    """The most that torch held on a GPU at once; None where it used none."""
    torch: Any = sys.modules.get("torch")
    return int(torch.cuda.max_memory_allocated()) if torch is not None and torch.cuda.is_initialized() else None


def _shortening(spec: CutSpec, tell: Status) -> Shortening:
    from valgap.seams.acting.shortening import Plan, Shortening

    return Shortening(Plan(spec.steps, spec.images, spec.seconds, spec.began), tell)


def main() -> None:
    """The spec lies in the folder given as the only argument."""
    folder = Path(sys.argv[1]).resolve()
    sys.exit(run(CutSpec(**json.loads((folder / SPEC_FILE).read_text())), folder))


if __name__ == "__main__":
    main()
