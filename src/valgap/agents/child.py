"""`python -m valgap ...` as a child: its output bounded, told about while it runs, and ended with all that it started.

Arguments go as a list, no shell is involved. The child leads a process group of its own. Where the call is cancelled or takes
too long, the group gets what Ctrl-C sends, so that its record has an end; later it is killed. Where this server is killed, a
janitor does that.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from valgap.errors import ValgapError
from valgap.experiments.janitor import GROUP, Janitor

POLL_S, TELL_S = 0.1, 1.0
# The record is ended, and re-runs of the child's own are taken away, within the first.
INTERRUPT_S, TERMINATE_S = 10.0, 2.0
TAIL_BYTES = 16 << 10
MAX_JSON_BYTES = 256 << 20
MAX_LOOSE_BYTES = 8 << 20  # a script that prints without end does not fill the disk
MARK = "valgap: "  # before the lines in which valgap says where it is
Tell = Callable[[str], Awaitable[None]]  # where it is, in words


@dataclass(frozen=True)
class Done:
    """How a child ended."""

    status: int
    out: str
    err: str  # its last lines
    seconds: float
    ended_by: Literal["itself", "time"] = "itself"

    @property
    def reason(self) -> str:
        """The last line in which valgap says why; "" without one."""
        lines = [line for line in self.err.splitlines() if line.startswith(MARK)]
        return lines[-1].removeprefix(MARK) if lines else ""


async def call(command: Sequence[str], folder: Path, limit_s: float, tell: Tell, *, together: bool = False) -> Done:
    """What ``valgap COMMAND...`` made of it, started in ``folder``.

    Args:
        limit_s: seconds after which it is ended.
        tell: told where it is, about every second.
        together: both streams as one, of which only the end is kept; for scripts, which may print without end.

    Raises:
        ValgapError: an argument cannot be one, or more was printed than any answer of ours holds.
        asyncio.CancelledError: the call was cancelled; the child is being ended.
    """
    try:
        if any(b"\0" in word.encode() for word in command):
            raise ValueError("NUL")
    except ValueError as error:  # half a character is one too
        raise ValgapError("an argument holds a character that no command line takes: leave it out") from error
    with tempfile.TemporaryFile("a+b") as out, tempfile.TemporaryFile("a+b") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "valgap", *command],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out if together else err,
            start_new_session=True,
        )
        janitor = Janitor()
        janitor.knows(GROUP, process.pid)
        begun = time.monotonic()
        try:
            ended_by = await _wait(process, (out, out if together else err), begun, limit_s, tell, together)
        except BaseException:
            # The scope of this call is over: what follows must not wait in it.
            threading.Thread(target=_end, args=(process, janitor), daemon=False).start()
            raise
        if ended_by == "time":
            await asyncio.to_thread(_end, process, janitor)
        else:
            await asyncio.to_thread(janitor.leave)
        kept = TAIL_BYTES if together else MAX_JSON_BYTES
        return Done(process.returncode, _tail(out, kept), _tail(err, TAIL_BYTES), time.monotonic() - begun, ended_by)


async def _wait(
    process: subprocess.Popen[bytes],
    streams: tuple[IO[bytes], IO[bytes]],
    begun: float,
    limit_s: float,
    tell: Tell,
    together: bool,
) -> Literal["itself", "time"]:
    out, said = streams
    told_at, where = -TELL_S, "starting"
    while process.poll() is None:
        now = time.monotonic() - begun
        if now > limit_s:
            return "time"
        _hold(out, together)
        if not together:
            _hold(said, True)
        if now - told_at >= TELL_S:
            told_at = now
            lines = [line for line in _tail(said, 2_000).splitlines() if line.startswith(MARK)]
            where = lines[-1].removeprefix(MARK) if lines else ("the script runs" if together else where)
            await tell(where)
        await asyncio.sleep(POLL_S)
    return "itself"


def _hold(stream: IO[bytes], loose: bool) -> None:
    """Keep a stream's file small: whoever appends to it goes on at its new end."""
    size = os.fstat(stream.fileno()).st_size
    if loose and size > MAX_LOOSE_BYTES:
        end = _tail(stream, TAIL_BYTES).encode()
        os.ftruncate(stream.fileno(), 0)
        os.write(stream.fileno(), end)
    elif not loose and size > MAX_JSON_BYTES:
        raise ValgapError("more was printed than an answer may hold: ask for fewer causes, or use the command line")


def _tail(stream: IO[bytes], most: int) -> str:
    size = os.fstat(stream.fileno()).st_size
    return os.pread(stream.fileno(), most, max(0, size - most)).decode("utf-8", "replace")


def _end(process: subprocess.Popen[bytes], janitor: Janitor) -> None:
    """As Ctrl-C at first, then for good; whatever of its group is left goes with the janitor."""
    for how, wait_s in ((signal.SIGINT, INTERRUPT_S), (signal.SIGTERM, TERMINATE_S), (signal.SIGKILL, INTERRUPT_S)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        try:
            process.wait(wait_s)
            break
        except subprocess.TimeoutExpired:
            continue
    janitor.leave()
