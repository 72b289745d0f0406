"""Measurements attempted within a time budget: what they give is written, or why they give nothing.

What is measured is planned by counts; the clock only says what has to wait for a later process (``cut``).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from valgap.record.writer import RecordWriter
from valgap.seams.closing.source import CannotBeReadError


class OutOfTimeError(Exception):
    """Raised by a measurement that finds no time to be made."""


class Attempts:
    """A time budget that began at ``started`` (of ``time.perf_counter``), and the record that is told what came of it."""

    def __init__(self, writer: RecordWriter, budget_s: float, started: float) -> None:
        self.writer = writer
        self.budget_s = budget_s
        self.started = started
        self.cut: list[str] = []  # what is missing, or rests on fewer images than planned, for want of time

    def until(self, share: float) -> float:
        """When this share of the budget is spent, on the clock of ``time.perf_counter``."""
        return self.started + self.budget_s * share

    @property
    def ending(self) -> float:
        """When the budget ends, on the same clock."""
        return self.started + self.budget_s

    def make(self, name: str, measure: Callable[[], None], needs_s: float = 0.0) -> None:
        """Make a measurement that is not worth an exception; it is skipped where less time is left than it needs."""
        left = self.ending - time.perf_counter()
        if left < needs_s:
            self.out_of_time(name, f"it needs about {needs_s:.1f} s, and the time budget has {max(0.0, left):.1f} s left")
            return
        try:
            measure()
        except KeyboardInterrupt:
            self.skip(name, "interrupted")
        except OutOfTimeError as reason:
            self.out_of_time(name, str(reason))
        except CannotBeReadError as reason:
            self.skip(name, str(reason))
        except Exception as error:
            self.skip(name, f"{type(error).__name__}: {error}"[:300])

    def numbers(self, name: str, measure: Callable[[], dict[str, float] | str], needs_s: float = 0.0) -> None:
        """Make a measurement and write the numbers that it returns, or, where it returns words, why there are none."""

        def write() -> None:
            values = measure()
            if isinstance(values, str):
                self.skip(name, values)
            else:
                self.writer.write("numbers", {"values": values})

        self.make(name, write, needs_s)

    def out_of_time(self, name: str, reason: str = "the time budget ended") -> None:
        """Write that a measurement was not made for want of time."""
        self.cut.append(name)
        self.skip(name, reason)

    def skip(self, name: str, reason: str) -> None:
        """Write that a measurement was not made."""
        self.writer.write("skipped", {"name": name, "reason": reason})
