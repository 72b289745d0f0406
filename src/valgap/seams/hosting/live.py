"""Watches a run while it goes on: starts the process that judges its record, and tells the program's user what that finds.

The judging is done by a process of our own (``valgap.live.follower``) that reads the record's file: neither the program's memory
nor its threads, its random state or its modules are touched. This side looks between batches whether RUN/live.jsonl has grown.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from valgap.errors import StoppedOnWarning
from valgap.record.location import LIVE

POLL_S = 0.3
SUSPICION = "suspected"  # what --stop-on and stop_on take
# The exit status of a program that was ended after a warning, as was asked; 1 to 4 are other commands' of valgap.
STOPPED = 5
PACKAGE_HOME = str(Path(__file__).parents[2])
# The forked process belongs to nobody: a program that waits for its children, or counts them, must not meet it.
CODE = """
import os, sys
if os.fork():
    os._exit(0)
import site
site.main()
folder, pid, home, *rest = sys.argv[1:]
first = next((i for i, p in enumerate(sys.path) if p.endswith("-packages")), len(sys.path))
sys.path.insert(first, home)
sys.path += [p for p in rest if p not in sys.path]
from valgap.live.follower import main
main(folder, int(pid))
"""


def interrupt(code: str) -> None:
    """End the program as Ctrl-C does; ``code``: of the cause that it was warned of.

    Raises:
        StoppedOnWarning: the program has no handler of its own for SIGINT.
    """
    if signal.getsignal(signal.SIGINT) in (signal.default_int_handler, signal.SIG_IGN, signal.SIG_DFL, None):
        raise StoppedOnWarning(stopped_after(code))
    signal.raise_signal(signal.SIGINT)


def stopped_after(code: str) -> str:
    """How the record tells it."""
    return f"stopped after the warning {code}"


class Live:
    """The warnings of one run.

    Args:
        folder: the run directory.
        tell: given each warning (the fields of ``types.LiveWarning``), in the program's main thread, between two batches.
        stop: what ends the program after its first warning, given the code of the cause; None: it goes on.
    """

    status = STOPPED

    def __init__(
        self, folder: Path, tell: Callable[[Mapping[str, Any]], None], stop: Callable[[str], None] | None = None
    ) -> None:
        self.stopped_by = ""  # the code of the cause after which the program was ended
        self.problem = ""  # why nothing is watched
        self._folder, self._tell, self._stop = folder.absolute(), tell, stop
        self._file = self._folder / LIVE
        self._pid = os.getpid()
        self._pipe = -1
        self._read = 0
        self._next = 0.0

    def start(self) -> None:
        """Start the process that judges; where that fails, ``problem`` says why."""
        if not hasattr(os, "posix_spawn") or not hasattr(os, "fork"):
            self.problem = "warnings while a script runs need a POSIX system"
            return
        try:
            self._spawn()
        except OSError as error:
            self.problem = f"the process that judges the record could not be started: {error.strerror}"

    def _spawn(self) -> None:
        reading, self._pipe = os.pipe()
        command = [sys.executable, "-I", "-S", "-c", CODE, str(self._folder), str(self._pid), PACKAGE_HOME, *_library_folders()]
        nothing = [(os.POSIX_SPAWN_OPEN, n, os.devnull, os.O_WRONLY, 0) for n in (1, 2)]
        actions = [(os.POSIX_SPAWN_DUP2, reading, 0), *nothing]
        try:
            # Not by subprocess, whose commands are followed.
            child = os.posix_spawn(sys.executable, command, _variables(), file_actions=actions)
            with contextlib.suppress(ChildProcessError):  # a program that ignores its children has none to wait for
                os.waitpid(child, 0)
        finally:
            os.close(reading)

    def look(self) -> None:
        """Tell what is new. Called between batches; nearly always it only reads the clock. Raises what ``stop`` does."""
        now = time.monotonic()
        if now < self._next or os.getpid() != self._pid:
            return
        self._next = now + POLL_S
        for warning in self._new():
            self._tell(warning)
            if self._stop and not self.stopped_by and "code" in warning:
                self.stopped_by = str(warning["code"])
        if self.stopped_by and self._stop is not None:
            stop, self._stop = self._stop, None  # once: a program that takes it as a wish for an early end has its way of ending
            stop(self.stopped_by)

    def _new(self) -> list[dict[str, Any]]:
        try:
            if self._file.stat().st_size <= self._read:
                return []
            with self._file.open("rb") as stream:
                stream.seek(self._read)
                lines = stream.read().split(b"\n")[:-1]
        except OSError:
            return []
        self._read += sum(len(line) + 1 for line in lines)
        found = []
        for line in lines:
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return [f for f in found if isinstance(f, dict)]

    def end(self) -> None:
        """The program has ended: so does the process that judges, at once."""
        if self._pipe < 0 or os.getpid() != self._pid:
            return
        with contextlib.suppress(OSError):
            os.close(self._pipe)
        self._pipe = -1


def words_of(warning: Mapping[str, Any]) -> list[str]:
    """A warning as lines of text, without control characters."""
    if "code" not in warning:
        return [f"valgap: judging the record failed; {LIVE} in the run directory says why"]
    epoch = int(warning.get("epoch", 0))
    when = "in the first epoch" if epoch < 1 else f"after epoch {epoch}"
    sure = f"{float(warning.get('confidence', 0.0)):.0%} sure"
    head = f"warning {when}: {warning.get('code')} {warning.get('name')} (stage {warning.get('stage')}, {sure})"
    why = warning.get("why")
    lines = [head, f"  {warning.get('what')}", *(f"  - {e}" for e in (why if isinstance(why, list) else ()))]
    lines.append(f"  remedy: {warning.get('remedy')} (valgap explain {warning.get('code')})")
    return [f"valgap: {_plain(line)}" for line in lines]


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _library_folders() -> list[str]:
    """Where this interpreter finds modules, without the program's own folder and the working directory."""
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    own = {str(Path.cwd()), str(Path(os.path.realpath(main)).parent) if main else ""}
    return [p for p in sys.path if Path(p).is_absolute() and p not in own]


def _variables() -> dict[str, str]:
    """The environment of the process that judges: one thread, no GPU, nothing of this interpreter's settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return {**kept, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
