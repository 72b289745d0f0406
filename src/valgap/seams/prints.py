"""Listens to what the program prints, without replacing its streams."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

MAX_LINES = 4_000
MAX_LENGTH = 400


class PrintTap:
    """Calls ``heard(line)`` for each finished line with a digit in it, on standard output and error."""

    def __init__(self, heard: Callable[[str], None]) -> None:
        self._heard = heard
        self._lines = 0
        self._undo: list[Callable[[], None]] = []

    def attach(self) -> None:
        """Wrap ``write`` of both streams, on the stream objects themselves."""
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                self._wrap(stream)

    def _wrap(self, stream: Any) -> None:
        original = stream.write
        rest = ""

        def write(text: str) -> Any:
            nonlocal rest
            result = original(text)
            try:
                if isinstance(text, str) and self._lines < MAX_LINES:
                    *whole, rest = (rest + text).split("\n")
                    for line in whole:
                        self._line(line)
                    rest = rest[-MAX_LENGTH * 4 :]
            except Exception:
                rest = ""  # the program's own printing must never fail because of us
            return result

        try:
            stream.write = write
        except AttributeError:
            return  # a stream without instance attributes: its lines are not heard

        def undo() -> None:
            if stream.__dict__.get("write") is write:
                del stream.write

        self._undo.append(undo)

    def _line(self, line: str) -> None:
        line = line.rsplit("\r", 1)[-1].strip()
        if any(c.isdigit() for c in line) and self._lines < MAX_LINES:
            self._lines += 1
            self._heard(line[:MAX_LENGTH])

    def detach(self) -> None:
        """Give the streams back as they were."""
        while self._undo:
            self._undo.pop()()
