"""Listens to what the program prints, without replacing its streams."""

from __future__ import annotations

import contextlib
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from valgap.record.drawn import last_state

MAX_LENGTH = 400
# Of what is printed while a pass runs, and of what is printed after it: so many first lines, and so many last ones.
FIRST, LAST = 60, 20
# After so many lines only the last ones of each such stretch are kept, and after so many more nothing.
MANY, MOST = 10_000, 40_000
# Lines without a digit before one with digits: the names of a table's columns, a heading.
HEADINGS = 3

DIGIT = re.compile(r"\d")
# (passes begun, whether the newest is still running)
Moment = tuple[int, bool]


class PrintTap:
    """Calls ``heard(line, moment)`` for lines with a digit, and the headings before them, on standard output and error.

    A line that is drawn over with carriage returns counts in its last state: when its line ends, when it is wiped, or when the
    moment has changed since it was drawn.
    """

    def __init__(self, heard: Callable[[str, Moment], None], moment: Callable[[], Moment]) -> None:
        self._stretch = _Stretch(heard)
        self._moment = moment
        self._ears: list[_Ear] = []
        self._undo: list[Callable[[], None]] = []
        self._deaf = False
        self._within: dict[int, bool] = {}  # by id() of a stream: whether what was written last has no end of line

    def within_line(self, stream: Any) -> bool:
        """Whether a line of the program's is under way where this stream is shown."""
        streams = [stream]
        with contextlib.suppress(Exception):  # a stream of the program's own making
            streams += [s for s in (sys.stdout, sys.stderr) if s.isatty() and stream.isatty()]
        return any(self._within.get(id(s), False) for s in streams)

    @contextlib.contextmanager
    def deaf(self) -> Iterator[None]:
        """Inside, nothing is heard: what is written is not the program's."""
        self._deaf = True
        try:
            yield
        finally:
            self._deaf = False

    def attach(self) -> None:
        """Wrap ``write`` of both streams, on the stream objects themselves: handlers of ``logging`` hold these too."""
        for stream in {id(s): s for s in (sys.stdout, sys.stderr) if s is not None}.values():
            self._wrap(stream)

    def _wrap(self, stream: Any) -> None:
        original = stream.write
        ear = _Ear(self._stretch.add, self._moment)

        def write(text: str) -> Any:
            result = original(text)
            try:
                if isinstance(text, str) and not self._deaf:
                    self._within[id(stream)] = not text.endswith("\n") if text else self._within.get(id(stream), False)
                    ear.hear(text)
            except Exception:
                ear.rest = ""  # the program's own printing must never fail because of us
            return result

        try:
            stream.write = write
        except AttributeError:
            return  # a stream without instance attributes: its lines are not heard

        def undo() -> None:
            if stream.__dict__.get("write") is write:
                del stream.write

        self._ears.append(ear)
        self._undo.append(undo)

    def detach(self) -> None:
        """Give the streams back as they were; what was drawn last and has no end of line is heard."""
        while self._undo:
            self._undo.pop()()
        for ear in self._ears:
            ear.end()
        self._ears.clear()
        self._stretch.end()


class _Ear:
    """Puts the pieces that are written to one stream together to lines."""

    def __init__(self, line: Callable[[str, Moment], None], moment: Callable[[], Moment]) -> None:
        self.rest = ""
        self._line = line
        self._moment = moment
        self._drawn: tuple[str, Moment] | None = None  # the last state of a line that is drawn over

    def hear(self, text: str) -> None:
        """A piece was written."""
        if "\n" not in text and "\r" not in text:
            self.rest = (self.rest + text)[-4 * MAX_LENGTH :]
            return
        now = self._moment()
        if self._drawn is not None and self._drawn[1] != now:
            self._drawn = (last_state(self.rest) or self._drawn[0], self._drawn[1])
            self._tell_drawn()
        *whole, rest = (self.rest + text).split("\n")
        for line in whole:
            self._line(last_state(line) if "\r" in line else line, now)
            self._drawn = None
        self.rest = self._redraw(rest, now)[-4 * MAX_LENGTH :] if "\r" in rest else rest

    def _redraw(self, rest: str, now: Moment) -> str:
        """What is kept of a line that has no end yet: its last state."""
        last = ""
        for last in rest.split("\r"):
            if last.strip():
                self._drawn = (last, now)
            elif last:
                self._tell_drawn()  # wiped with blanks
        return "\r" + (self._drawn[0] if self._drawn is not None else last)

    def _tell_drawn(self) -> None:
        drawn, self._drawn = self._drawn, None
        if drawn is not None:
            self._line(*drawn)

    def end(self) -> None:
        """Nothing more is written."""
        text = last_state(self.rest)
        if self._drawn is not None:
            self._line(text or self._drawn[0], self._drawn[1])
        elif text:
            self._line(text, self._moment())
        self.rest, self._drawn = "", None


class _Stretch:
    """Keeps the first and the last lines of what is printed at one moment."""

    def __init__(self, heard: Callable[[str, Moment], None]) -> None:
        self._heard = heard
        self._total = 0
        self._here = 0
        self._now: Moment = (-1, False)
        self._headings: deque[str] = deque(maxlen=HEADINGS)
        self._last: deque[tuple[str, Moment]] = deque(maxlen=LAST)

    def add(self, line: str, moment: Moment) -> None:
        """A whole line."""
        line = line.rstrip()[:MAX_LENGTH]
        if moment != self._now:
            self.end()
            self._now, self._here = moment, 0
        if DIGIT.search(line) is None:
            if line:
                self._headings.append(line)
            return
        for one in (*self._headings, line):
            if self._here < FIRST and self._total < MANY:
                self._write(one, moment)
                self._here += 1
            else:
                self._last.append((one, moment))
        self._headings.clear()

    def end(self) -> None:
        """Write the last lines that wait."""
        while self._last:
            self._write(*self._last.popleft())

    def _write(self, line: str, moment: Moment) -> None:
        if self._total < MOST:
            self._total += 1
            self._heard(line, moment)
