"""`valgap run`: its arguments, read by hand, and the program between the first line and the last words.

Nothing is imported here that the script could see or would have to wait for: typer and rich come after the script.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from valgap.errors import NothingRecordedError, ValgapError
from valgap.record.location import wait_for_parts
from valgap.seams.hosting.live import SUSPICION, stopped_after
from valgap.seams.looking.random_states import random_states_kept
from valgap.visible import visible

if TYPE_CHECKING:
    from valgap.seams.hosting.ending import Ending
    from valgap.seams.hosting.session import Session

WRONG_USE, INTERRUPTED = 2, 130
MAX_CLOSING = 10.0
PARTS_S = 10.0  # other ranks end with the first one; what they still have to write takes less than this


class Call(NamedTuple):
    """What `valgap run` was asked for. All that follows SCRIPT or -m MODULE is the program's."""

    script: str | None
    module: str | None
    arguments: list[str]
    out: Path | None = None
    closing: float = 0.2
    live: bool = False  # warnings while it runs
    stop: bool = False  # and an end after the first of them


def read(argv: Sequence[str]) -> Call | None:
    """The call, if it is a plain `run ...`; None for other commands, help, completion and mistakes, which are typer's."""
    if list(argv[:1]) != ["run"] or "_VALGAP_COMPLETE" in os.environ:
        return None
    rest, out, closing, live, stop = list(argv[1:]), None, 0.2, False, False
    while rest:
        first = rest.pop(0)
        name, joined, value = first.partition("=")
        if first == "--" and rest:
            return Call(rest[0], None, rest[1:], out, closing, live, stop)
        if first == "-" or not first.startswith("-"):
            return Call(first, None, rest, out, closing, live, stop)
        if first.startswith("-m") and (first != "-m" or rest):
            return Call(None, first[2:] or rest.pop(0), rest, out, closing, live, stop)
        if first == "--live":
            live = True
            continue
        if name not in ("--out", "--closing", "--stop-on") or not (joined or rest):
            return None
        value = value if joined else rest.pop(0)
        if name == "--stop-on":
            if value != SUSPICION:
                return None
            live = stop = True
            continue
        if name == "--out":
            out = Path(value)
            continue
        try:
            closing = float(value)
        except ValueError:
            return None
        if not 0 <= closing <= MAX_CLOSING:
            return None
    return None


class LastWords:
    """What is said when the process ends: after the program's own exit handlers, on the standard error of the start."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._stream = sys.stderr
        self._texts: list[str] = []
        atexit.register(self._show)  # handlers run in reverse: this one comes last

    def say(self, text: str) -> None:
        """One line."""
        self._texts.append(f"valgap: {visible(text)}\n")

    def add(self, text: str) -> None:
        """Text as it is."""
        self._texts.append(text)

    def _show(self) -> None:
        if os.getpid() != self._process or not self._texts:
            return
        with contextlib.suppress(Exception):  # Python tries again, and tells it
            sys.stdout.flush()
        with contextlib.suppress(AttributeError, OSError, ValueError):  # none, or the program closed it
            self._stream.write("".join(self._texts))
            self._stream.flush()


def run(call: Call) -> NoReturn:
    """Run the program, record it, and end as it ended."""
    from valgap.record.place import place_of, shared_run_directory
    from valgap.seams.hosting import host
    from valgap.seams.hosting.live import Live, interrupt
    from valgap.seams.hosting.session import Session

    words = LastWords()
    try:
        if call.module is not None:
            target, name = host.module_target(call.module, call.arguments), call.module
        else:
            assert call.script is not None
            target, name = host.script_target(call.script, call.arguments), call.script
        place = place_of()
        folder = shared_run_directory(call.out, call.module or Path(name).resolve().stem, place)
        session = Session(folder, target.argv, name, call.module, place=place)
        session.closing = call.closing
        if call.live:
            session.live = Live(folder, session.warn, interrupt if call.stop else None)
    except ValgapError as error:
        words.say(str(error))
        raise SystemExit(WRONG_USE) from None
    ending = host.execute(target, session)
    if not ending.elsewhere:
        try:
            with random_states_kept():
                _close(session, ending, call.closing, words)
        except KeyboardInterrupt:
            words.say("interrupted")
            ending.code = ending.code or INTERRUPTED
        except Exception:
            import traceback

            words.add(traceback.format_exc())  # a fault of ours is shown, and is not the program's
    ending.leave()


def _close(session: Session, ending: Ending, closing: float, words: LastWords) -> None:
    """End the record, measure, and say what there is to be said of the run."""
    _note_stop(session, ending, words)
    status, folder = ending.status, session.writer.path.absolute()
    with ending.once_more():
        seconds = session.finish(status, ending.error)
        session.close(seconds, closing if status == 0 else 0.0, _say_now)
    if session.writer.stopped:
        words.say(f"the record stops early: {session.writer.stopped}")
    if not session.leads:
        return  # rank 0 tells of all
    wait_for_parts(folder, PARTS_S)
    if status != 0:
        words.say(f"the script ended with status {status}; what it did until then is recorded in {session.writer.path}")
    problem = session.problem
    if problem is not None:
        words.say(problem)
        if status == 0:
            ending.code = WRONG_USE  # whoever asked for a record is told that there is none
        return
    with ending.backstage.alone():
        unjudged = _told(folder, words)
    if unjudged is not None:
        words.say(unjudged)
    words.say(f"recorded in {session.writer.path}")


def _note_stop(session: Session, ending: Ending, words: LastWords) -> None:
    """Give the ending the status of a program that was ended after a warning, whatever it made of that."""
    live = session.live
    if live is None:
        return
    if live.problem:
        words.say(live.problem)
    if live.stopped_by:
        words.say(f"the script was ended after the warning {live.stopped_by} (--stop-on): exit status {live.status}")
        ending.code, ending.interrupted = live.status, False
        ending.error = ending.error or stopped_after(live.stopped_by)


def _say_now(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(f"valgap: {visible(text)}", file=sys.stderr)


def _told(folder: Path, words: LastWords) -> str | None:
    """Add what the record says; returns why it says nothing."""
    # Only here: for a script without torch these imports would take ten times as long as the script.
    from rich.console import Console

    from valgap.diagnosis import diagnose
    from valgap.report.terminal import show_diagnosis

    try:
        diagnosis = diagnose(folder, images=0, rebuild=False)  # that takes time of its own: `valgap diagnose`
    except NothingRecordedError as nothing:
        return str(nothing)
    console = Console(stderr=True)
    with console.capture() as shown:
        show_diagnosis(diagnosis, console)
    words.add(shown.get())
    return None
