"""A sandboxed program that makes attempts, on this system and on what older ones leave of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.experiments.escapes.attempt import Attempt
from tests.experiments.escapes.stage import Stage

# Systems: what is left out of this one, as where a kernel is older or a container forbids it.
SYSTEMS: dict[str, tuple[str, ...]] = {
    "whole": (),
    "user-namespace": ("rights",),
    "no-namespaces": ("namespaces",),
    "first-landlock": ("namespaces", "landlock-1"),
    "no-supervisor": ("supervisor",),
    "no-landlock": ("landlock",),
}


class Asked:
    """A sandboxed program that makes the attempts, and what has come of each."""

    def __init__(self, folder: Path, without: tuple[str, ...]) -> None:
        self.stage = Stage(folder)
        self._temporary = tempfile.mkdtemp(prefix="v-")
        file = folder / "stage.json"
        file.write_text(json.dumps(self.stage.told))
        command = [sys.executable, "-m", "tests.experiments.escapes.program", str(file), *without]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": self._temporary},
            start_new_session=True,
        )
        self.guards: dict[str, bool] = self._line()

    def _line(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the program has ended: {self._process.wait()}"
        return json.loads(line)

    def make(self, attempt: Attempt) -> tuple[dict[str, Any], list[str]]:
        """What the program was told, and what changed outside."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{attempt.name}\n")
        self._process.stdin.flush()
        return self._line(), self.stage.changed()

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self.stage.close()
        shutil.rmtree(self._temporary)
