"""A working folder, a home and a temporary folder of their own for one command: what it left there, and which processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import forks

ORPHAN_S = 10.0
LIMIT_S = 300.0
MARK = "TRUST_GROUND"


class Ground:
    """Folders of one trial; made anew, with what ``template`` holds in the working folder."""

    def __init__(self, folder: Path, template: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.folder = folder
        self.work, self.home, self.tmp, self.cache = (folder / name for name in ("work", "home", "tmp", "cache"))
        shutil.copytree(template, self.work, symlinks=True)
        for other in (self.home, self.tmp):
            other.mkdir()
        self.more: dict[str, str] = {}
        self._count = 0

    def variables(self) -> dict[str, str]:
        """The environment of its commands."""
        own = {"HOME": self.home, "TMPDIR": self.tmp, "VALGAP_CACHE": self.cache, MARK: self.folder}
        fixed = {"OMP_NUM_THREADS": "1", "COLUMNS": "100"}
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "VALGAP"))}
        return {**kept, **{k: str(v) for k, v in own.items()}, **fixed, **self.more}

    def start(self, command: Sequence[str]) -> Process:
        """A command, in a fork of this process."""
        self._count += 1
        texts = self.folder / f"out-{self._count}", self.folder / f"err-{self._count}"
        return Process(forks.start(command, self.work, self.variables(), *texts, first=interruptible), *texts)

    def run(self, command: Sequence[str]) -> Ended:
        """A command to its end."""
        return self.start(command).wait(LIMIT_S)

    def paths(self) -> set[str]:
        """All that lies in the three folders, such as work/r/events.jsonl."""
        found = set()
        for name in ("work", "home", "tmp"):
            for place, folders, files in os.walk(self.folder / name):
                found |= {str((Path(place) / f).relative_to(self.folder)) for f in (*folders, *files)}
        return found

    def processes(self, session: int) -> list[int]:
        """Processes of its commands that are there: of that session, started from one of its, or working in its folders."""
        return [
            pid
            for pid in map(int, filter(str.isdigit, (p.name for p in Path("/proc").iterdir())))
            if pid != os.getpid() and self._owns(pid, session)
        ]

    def _owns(self, pid: int, session: int) -> bool:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            if state[0] == "Z":
                return False
            if int(state[3]) == session:
                return True
            where = os.readlink(f"/proc/{pid}/cwd")  # noqa: PTH115 (it may say "(deleted)")
            marked = f"{MARK}={self.folder}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
        except (OSError, IndexError, ValueError):
            return False
        return where.startswith(str(self.folder)) or marked

    def orphans(self, session: int) -> list[str]:
        """What still runs ten seconds later, in words; it is ended."""
        until = time.monotonic() + ORPHAN_S
        while (left := self.processes(session)) and time.monotonic() < until:
            time.sleep(0.05)
        told = [f"{pid}: {_command(pid)}" for pid in left]
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        return told


class Ended:
    """How a command ended."""

    def __init__(self, status: int, out: str, err: str, seconds: float) -> None:
        self.status, self.out, self.err, self.seconds = status, out, err, seconds

    @property
    def refused(self) -> bool:
        """One line and status 2."""
        return self.status == 2 and (self.err.splitlines() or [""])[-1].startswith("valgap: ") and "Traceback" not in self.err

    @property
    def words(self) -> str:
        """The status and the last line."""
        lines = [line for line in self.err.splitlines() if line.strip()]
        return f"status {self.status}, {lines[-1][-200:] if lines else 'no word'}"


class Process:
    """A command that runs."""

    def __init__(self, pid: int, out: Path, err: Path) -> None:
        self.pid, self.out, self.err = pid, out, err
        self.begun = time.monotonic()

    def wait(self, most_s: float) -> Ended:
        status = forks.wait(self.pid, self.begun + most_s)
        return Ended(
            status, self.out.read_text(errors="replace"), self.err.read_text(errors="replace"), time.monotonic() - self.begun
        )

    def send(self, number: int) -> bool:
        """Send a signal to this process alone; whether it was still there. It is not waited for."""
        done, status = os.waitpid(self.pid, os.WNOHANG)
        if done:
            self.status = os.waitstatus_to_exitcode(status)
            return False
        os.kill(self.pid, number)
        return True

    def kill(self) -> bool:
        """kill -9; whether it was still there."""
        if not self.send(signal.SIGKILL):
            return False
        os.waitpid(self.pid, 0)
        return True


def interruptible() -> None:
    """Signals as a shell sets them."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:120]
    except OSError:
        return "gone"


def stray(before: set[str], after: set[str], allowed: Sequence[str]) -> list[str]:
    """New paths that are neither an output that was named nor below one."""
    return sorted(p for p in after - before if not any(p == a or p.startswith(f"{a}/") for a in allowed))
