"""The process beside a running program: follows its record, judges it now and then, and notes what it suspects in RUN/live.jsonl.

It imports nothing heavy before the first passes are there, takes at most ``SHARE`` of the program's time, and ends with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

from valgap.record.encoding import EVENTS_FILE
from valgap.record.location import part_files
from valgap.record.processes import ask_for

POLL_S = 0.25
# Processor time, of the time since the program began, after the first two judgements: the first batches, the first epoch.
SHARE = 0.03
FREE = 2
# In the worst case, with all cores at work, it then gets 29 parts of 1024 + 29 of one core.
NICE = 16
DYING_S = 1.0  # a process that is killed closes its files a moment before it is gone
NICE_VARIABLE = "VALGAP_LIVE_NICE"


class Growth:
    """How far the record has come: which lines were written that make it worth a judgement. Reads each byte once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}
        self.passes: dict[Path, int] = {}  # ended ones, of each process that has begun one
        self.started = False  # whether the first batches of the first training pass are there
        self.ended = False

    def look(self) -> int:
        """Passes that have ended in every process, and one more as soon as the first batches are there."""
        for file in (self._folder / EVENTS_FILE, *part_files(self._folder)):
            self._read_on(file)
        ranks = [n for file, n in self.passes.items() if not file.stem.startswith("child-")]
        # Of several ranks a pass counts when all of them have ended it: a part of its samples is no small pass.
        least = min(ranks, default=0)
        others = sum(n for file, n in self.passes.items() if file.stem.startswith("child-"))
        return least + others + int(self.started or least + others > 0)

    def _read_on(self, file: Path) -> None:
        try:
            with file.open("rb") as stream:
                stream.seek(self._read.get(file, 0))
                lines = stream.read().split(b"\n")[:-1]
        except OSError:
            return
        self._read[file] = self._read.get(file, 0) + sum(len(line) + 1 for line in lines)
        for line in lines:
            kind = line[:40]
            if b'"t":"pass_' in kind:
                self.passes[file] = self.passes.get(file, 0) + (b'"t":"pass_end"' in kind)
            self.started |= b'"t":"part"' in kind
            self.ended |= file.name == EVENTS_FILE and b'"t":"end"' in kind


class Follower:
    """Judges one run until its program ends."""

    def __init__(self, folder: Path, pid: int) -> None:
        self._folder, self._pid = folder, pid
        self._begun = time.monotonic()
        self._free_s = 0.0  # processor time of the first judgements, which does not count
        self._judged = self._times = 0
        self._codes: set[str] = set()
        self._failed = False

    def run(self) -> None:
        """Follow until the program has ended, or is gone: then what is new is judged once more."""
        growth = Growth(self._folder)
        while True:
            gone = not is_there(self._pid)
            now = growth.look()
            if growth.ended:
                return  # what there is to be said is said by the program's own process
            if now > self._judged and (gone or self._may()):
                time.sleep(POLL_S)  # the state at the end of a pass is written right after it
                self._judged = now
                self._judge()
            if gone:
                return
            time.sleep(POLL_S)

    def _may(self) -> bool:
        """Whether a judgement as long as those before fits into the share of time."""
        if self._times < FREE:
            return True
        counted = time.process_time() - self._free_s
        each = counted / max(1, self._times - FREE) if self._times > FREE else self._free_s / (2 * FREE)
        return counted + each <= SHARE * (time.monotonic() - self._begun)

    def _judge(self) -> None:
        from valgap.live.judging import warnings_of
        from valgap.record.told import append, tell

        try:
            found = warnings_of(self._folder, self._codes)
            for warning in found:
                self._codes.add(warning.code)
                tell(self._folder, warning)
        except Exception:
            if not self._failed:  # told once: what fails now mostly fails at every later pass
                self._failed = True
                append(self._folder, {"time": time.time(), "error": traceback.format_exc()})
        self._times += 1
        if self._times <= FREE:
            self._free_s = time.process_time()


def is_there(pid: int) -> bool:
    """Whether a process of this machine runs."""
    try:
        ask_for(pid)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return not _is_dead(pid)


def _is_dead(pid: int) -> bool:
    """Whether it has ended and only waits to be asked how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return False


def _end_when_closed(pid: int) -> None:
    """End when the program's process, which goes on, has closed the pipe that is our standard input: the run is over."""
    with contextlib.suppress(OSError):
        os.read(0, 1)
    time.sleep(DYING_S)
    if is_there(pid):
        os._exit(0)


def main(folder: str, pid: int) -> None:
    """Follow the run in ``folder``, whose program runs as process ``pid``."""
    for name in ("SIGINT", "SIGHUP"):  # Ctrl-C is meant for the program, which may take it for no end
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    nice = os.environ.get(NICE_VARIABLE, "")
    with contextlib.suppress(OSError):
        os.nice(int(nice) if nice.isdigit() else NICE)
    threading.Thread(target=_end_when_closed, args=(pid,), daemon=True).start()
    Follower(Path(folder), pid).run()
    sys.stdout.flush()
