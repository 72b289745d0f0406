"""Room for lines of ours between those of the program, whose progress bars stay whole."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from valgap.seams.hosting.prints import PrintTap


def write_between(tap: PrintTap, lines: Sequence[str]) -> None:
    """Write lines to the program's standard error, each on a line of its own; what fails is left out."""
    stream = sys.stderr
    if stream is not None:
        with contextlib.suppress(Exception), between_lines(tap):
            stream.write("".join(f"{line}\n" for line in lines))
            stream.flush()


@contextlib.contextmanager
def between_lines(tap: PrintTap) -> Iterator[None]:
    """Inside, what is written to standard error begins on a line of its own, and is not heard as the program's.

    tqdm is asked to take its bars away meanwhile and to draw them again, as ``tqdm.write`` does; rich's streams do so by
    themselves. Elsewhere what has no end of line yet stays where it is, and what is drawn next begins on the line after ours.
    """
    stream = sys.stderr
    with tap.deaf(), _bars_away(stream) as away:
        if stream is not None and not away and tap.within_line(stream):
            with contextlib.suppress(Exception):
                stream.write("\n")
        yield


@contextlib.contextmanager
def _bars_away(stream: Any) -> Iterator[bool]:
    """Whether tqdm's bars were taken off the terminal, where it has some; they come back at the end."""
    module: Any = sys.modules.get("tqdm.std")
    bars = getattr(getattr(module, "tqdm", None), "_instances", None)
    if not bars or stream is None or not stream.isatty():
        yield False
        return
    with module.tqdm.external_write_mode(file=stream):
        yield True
