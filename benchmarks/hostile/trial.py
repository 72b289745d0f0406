"""One hostile input put to the reader that a command uses: what came of it, and whether that is sound."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import random
import re
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from valgap.cli.console import say
from valgap.errors import ValgapError

MOST_S = 10.0  # of processor time
BUSY = 6.0  # so many times as long by the clock, on a machine that others use as well
MOST_BYTES = 10 << 30  # of address space: a forged size must not take the machine's memory
CANARY = "valgap-canary"  # in the working directory: something was executed
# What may stand in a terminal's output or a page: anything but control characters, and marks that turn the text around.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
FOLDERS = re.compile(r'(?<=")/[^"]*/')  # of a traceback: rows name no machine
READ, REFUSED = "read", "refused"


class UnsoundError(Exception):
    """An outcome that no user should see."""


class HungError(BaseException):
    """Longer than MOST_S. Not an Exception: readers that survive any error must not survive this."""


@dataclass(frozen=True)
class Trial:
    """A hostile input, made by ``make(draw, folder)`` of its kind."""

    what: str  # how it was made hostile, in words
    act: Callable[[], str | None]  # READ (or None) or REFUSED; raises for anything unsound
    calls: int = 1  # of readers, each of which may take MOST_S


@dataclass(frozen=True)
class Kind:
    """A kind of input."""

    name: str
    about: str
    count: int
    make: Callable[[random.Random, Path], Trial]
    holds: int = 1  # inputs in one trial


@dataclass(frozen=True)
class Outcome:
    """What came of a trial."""

    what: str
    came: str  # READ, REFUSED, or what was unsound
    seconds: float
    trace: str = ""

    @property
    def sound(self) -> bool:
        return self.came in (READ, REFUSED)


def tried(kind: Kind, number: int, folder: Path) -> Outcome:
    """The outcome of trial ``number`` of a kind; ``folder`` is empty and is the working directory."""
    trial = kind.make(random.Random(f"{kind.name} {number}"), folder)
    before = digests(folder)
    begun = time.perf_counter()
    trace = ""
    try:
        with at_most(MOST_S * trial.calls):
            came = trial.act() or READ
    except HungError:
        came, trace = f"no answer within {MOST_S * trial.calls:.0f} s", traceback.format_exc()
    except BaseException as error:
        came, trace = f"{type(error).__name__}: {error}"[:200], traceback.format_exc()
    seconds = time.perf_counter() - begun
    if Path(CANARY).exists():
        came = "something was executed"
        Path(CANARY).unlink()
    changed = [name for name, digest in before.items() if digests(folder).get(name) != digest]
    if changed:
        came = f"changed: {changed[0]!r}"
    return Outcome(trial.what, came, seconds, trace)


def digests(folder: Path) -> dict[str, bytes]:
    """The content of each file below a folder."""
    found = {}
    for place, _, files in os.walk(folder):
        for name in files:
            path = Path(place) / name
            if path.is_file() and not path.is_symlink():
                found[str(path)] = hashlib.blake2b(path.read_bytes()).digest()
    return found


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raises HungError inside when it takes longer."""

    def ring(*_: object) -> None:
        raise HungError

    timers = {signal.SIGALRM: (signal.ITIMER_REAL, BUSY * seconds), signal.SIGPROF: (signal.ITIMER_PROF, seconds)}
    old = {number: signal.signal(number, ring) for number in timers}
    for timer, most in timers.values():
        signal.setitimer(timer, most)
    try:
        yield
    finally:
        for timer, _ in timers.values():
            signal.setitimer(timer, 0)
        for number, handler in old.items():
            signal.signal(number, handler)


def bounded() -> None:
    """No more memory for this process than MOST_BYTES."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))


def refused(act: Callable[[], object]) -> str:
    """READ, or REFUSED where a reader says in one clean line why not."""
    begun = time.process_time()
    try:
        act()
        if time.process_time() - begun > MOST_S:
            raise UnsoundError(f"{time.process_time() - begun:.0f} s")
    except ValgapError as error:
        with caught() as (_, err):
            say(str(error))
        text = err()
        clean(text, "the line")
        if text.count("\n") != 1:
            raise UnsoundError(f"not one line: {text[:200]!r}") from error
        return REFUSED
    return READ


@contextlib.contextmanager
def caught() -> Iterator[tuple[Callable[[], str], Callable[[], str]]]:
    """What is printed inside, as a pipe would get it: (standard output, standard error)."""
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", errors, write_through=True) for errors in ("strict", "backslashreplace")]
    texts = [lambda s=s: s.buffer.getvalue().decode() for s in streams]  # type: ignore[attr-defined]
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        yield texts[0], texts[1]


def command(*words: object, allowed: tuple[int, ...] = (0, 1, 2)) -> str:
    """READ or REFUSED by the exit status of a valgap command, run in this process; what it prints has to be clean."""
    from valgap.cli import commands

    old, sys.argv = sys.argv, ["valgap", *map(str, words)]
    status: object = 0
    try:
        with caught() as (out, err):
            try:
                commands.main()
            except SystemExit as ended:
                status = ended.code
    finally:
        sys.argv = old
    clean(out(), "standard output")
    clean(err(), "standard error")
    if status not in allowed:
        raise UnsoundError(f"exit status {status}: {FOLDERS.sub('', out() + err())[-1500:]}")
    if status == 2 and not (err().splitlines() or [""])[-1].startswith("valgap: "):
        raise UnsoundError(f"exit status 2 without a line: {err()[-200:]!r}")
    return REFUSED if status == 2 else READ


def clean(text: str, where: str) -> None:
    """Raises UnsoundError where control characters are in a text."""
    found = CONTROL.search(text)
    if found:
        place = found.start()
        raise UnsoundError(f"{found[0]!r} in {where}: {text[max(0, place - 60) : place + 20]!r}")


def clean_page(page: Path) -> None:
    """Raises UnsoundError where a page holds a script, a handler, or control characters."""
    text = page.read_text(encoding="utf-8")
    clean(text, "the page")
    for word in ("<script", "<img src=x", "javascript:"):
        if word in text.lower():
            raise UnsoundError(f"{word} in the page")
