"""Cleans up after a diagnosis that was killed: its arms' processes, and their temporary folders.

A process of its own, which knows what there is and waits for the end of a pipe: nobody but the kernel closes that when the
diagnosis gets SIGKILL. Run as ``python janitor.py``; imports nothing of ours.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from pathlib import Path

GROUP, FOLDER = "group", "folder"


class Janitor:
    """The diagnosis's end of the pipe. It starts with what it is told of first, on POSIX alone."""

    def __init__(self) -> None:
        self._pipe = -1
        self._pid = -1

    def knows(self, kind: str, name: object) -> None:
        """A process group (its number) or a folder is there."""
        self._tell("+", kind, name)

    def forgets(self, kind: str, name: object) -> None:
        """It is gone."""
        if self._pipe >= 0:
            self._tell("-", kind, name)

    def leave(self) -> None:
        """Nothing is there any more, or what is there goes now."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
            os.waitpid(self._pid, 0)

    def _tell(self, sign: str, kind: str, name: object) -> None:
        if self._pipe < 0 and not self._start():
            return
        with contextlib.suppress(OSError):  # it may have been killed: things go on without it
            os.write(self._pipe, f"{sign}{kind} {name}\n".encode())

    def _start(self) -> bool:
        if not hasattr(os, "posix_spawn"):
            return False
        ours, its = 0, 0
        its, ours = os.pipe()
        command = [sys.executable, "-I", "-S", __file__]
        actions = [(os.POSIX_SPAWN_DUP2, its, 0)]
        # In a session of its own, so that a Ctrl-C on the terminal does not reach it.
        self._pid = os.posix_spawn(sys.executable, command, os.environ, file_actions=actions, setpgroup=0)
        os.close(its)
        self._pipe = ours
        return True


def wait_and_clean() -> None:
    """Read what there is until the pipe ends, then remove what was not taken back."""
    there: dict[tuple[str, str], None] = {}
    for line in sys.stdin:
        kind, _, name = line[1:].rstrip("\n").partition(" ")
        if line[0] == "+":
            there[kind, name] = None
        else:
            there.pop((kind, name), None)
    for kind, name in there:
        if kind == GROUP:
            with contextlib.suppress(OSError):
                os.killpg(int(name), signal.SIGKILL)
    for kind, name in there:
        if kind == FOLDER:
            shutil.rmtree(Path(name), ignore_errors=True)


if __name__ == "__main__":
    wait_and_clean()
