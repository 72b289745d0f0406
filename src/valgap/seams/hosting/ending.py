"""How a program ended, told and passed on as Python itself does."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, NoReturn

from valgap.errors import StoppedOnWarning
from valgap.seams.hosting.backstage import Backstage
from valgap.seams.hosting.live import STOPPED

INTERRUPTED = 130
OUR_FILES = Path(__file__).parents[1]


class Ending:
    """The end of a program: ``code`` is what it gave to ``sys.exit``, or what Python gives for it."""

    def __init__(self, code: Any = None, error: str | None = None, interrupted: bool = False) -> None:
        self.code = code
        self.error = error  # in one line
        self.interrupted = interrupted
        self.place: tuple[str, int] | None = None  # file and line of the program's own where it failed
        self.elsewhere = False  # this is a process that the program forked, and no recording is its business
        self.backstage = Backstage(None)
        self._forgotten: dict[str, Any] = {}
        self._main: dict[str, Any] = {}

    @property
    def status(self) -> int:
        """The exit status as a shell shows it."""
        if self.interrupted:
            return INTERRUPTED
        if not isinstance(self.code, int):
            return 0
        return self.code & 0xFF if abs(self.code) <= sys.maxsize else 0xFF

    def forget(self, main: ModuleType, *names: str) -> None:
        """Take names out of ``__main__``, as Python does when a script has ended."""
        self._main = main.__dict__
        self._forgotten = {name: self._main.pop(name) for name in names if name in self._main}

    @contextlib.contextmanager
    def once_more(self) -> Iterator[None]:
        """Inside, the program's classes can be used as before its end, and ours beside them."""
        self._main.update(self._forgotten)
        try:
            with self.backstage.ours():
                yield
        finally:
            for name in self._forgotten:
                self._main.pop(name, None)

    def leave(self) -> NoReturn:
        """End this process likewise: with the same exit status, or by the signal that Ctrl-C sends."""
        if self.interrupted:
            # Python itself then ends by SIGINT. The traceback is on the screen already.
            hook = sys.excepthook

            def silent(*_: Any) -> None:
                sys.excepthook = hook

            sys.excepthook = silent
            raise KeyboardInterrupt
        raise SystemExit(self.code)


def flush_both() -> None:
    """What Python does after the last line of a script. What fails here fails again when the process ends, and is told then."""
    for stream in (sys.stderr, sys.stdout):
        with contextlib.suppress(Exception):
            stream.flush()


def ended_by(error: BaseException | None) -> Ending:
    """The ending, after telling of it what Python tells: a traceback, or the text of a SystemExit."""
    if error is None:
        return Ending()
    place = _place(error)
    if isinstance(error, StoppedOnWarning):
        return Ending(STOPPED, str(error))  # no traceback: it is no fault of the program's
    if isinstance(error, SystemExit):
        ending = _exited(error)
    else:
        without_our_frames(error)
        line = f"{type(error).__name__}: {_text(error)}"
        stopped = _show(error)
        ending = _exited(stopped) if stopped is not None else Ending(1, line, isinstance(error, KeyboardInterrupt))
    ending.place = place if ending.code not in (None, 0) else None
    return ending


def _place(error: BaseException) -> tuple[str, int] | None:
    """The innermost line of the program's own that an exception came through; None where it has none."""
    import sysconfig

    libraries = tuple({sysconfig.get_path(n) for n in ("stdlib", "platstdlib", "purelib", "platlib")})
    trace, found = error.__traceback__, None
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        ours = trace.tb_frame.f_globals.get("__name__", "").startswith("valgap.")
        if not ours and not file.startswith((*libraries, "<")):
            found = (file, trace.tb_lineno)
        trace = trace.tb_next
    return found


def _exited(stop: SystemExit) -> Ending:
    if stop.code is None:
        return Ending()
    if isinstance(stop.code, int):
        return Ending(stop.code, None if stop.code == 0 else f"SystemExit: {_text(stop)}")
    _write(f"{_text(stop.code)}\n")
    return Ending(1, f"SystemExit: {_text(stop)}")


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:
        return "<no text>"


def _write(text: str) -> None:
    with contextlib.suppress(Exception):
        sys.stderr.write(text)
        sys.stderr.flush()


def _show(error: BaseException) -> SystemExit | None:
    """Hand an exception to ``sys.excepthook``, as the interpreter does; a SystemExit of the hook is returned."""
    kind, trace = type(error), error.__traceback__
    sys.last_type, sys.last_value, sys.last_traceback = kind, error, trace
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    hook = getattr(sys, "excepthook", None)
    if hook is None:
        _write("sys.excepthook is missing\n")
        sys.__excepthook__(kind, error, trace)
        return None
    sys.audit("sys.excepthook", hook, kind, error, trace)
    try:
        hook(kind, error, trace)
    except SystemExit as stop:
        return stop
    except BaseException as second:
        failure = second
    else:
        return None
    without_our_frames(failure)
    _write("Error in sys.excepthook:\n")
    sys.__excepthook__(type(failure), failure, failure.__traceback__)
    _write("\nOriginal exception was:\n")
    sys.__excepthook__(kind, error, trace)
    return None


def without_our_frames(error: BaseException) -> None:
    """Take the frames of this package out of an exception's traceback and of those behind it."""
    waiting, done = [error], set()
    while waiting:
        one = waiting.pop()
        if id(one) in done:
            continue
        done.add(id(one))
        one.__traceback__ = _shortened(one.__traceback__)
        waiting += [e for e in (one.__cause__, one.__context__, *getattr(one, "exceptions", ())) if isinstance(e, BaseException)]


def _shortened(trace: TracebackType | None) -> TracebackType | None:
    kept = []
    while trace is not None:
        if OUR_FILES not in Path(trace.tb_frame.f_code.co_filename).parents:
            kept.append(trace)
        trace = trace.tb_next
    for one, following in zip_longest(kept, kept[1:]):
        one.tb_next = following
    return kept[0] if kept else None
