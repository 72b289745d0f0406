"""Measurements attempted within a time budget: what they give is written, or why they give nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

from valgap.record.writer import RecordWriter
from valgap.seams.source import CannotBeReadError


class Attempts:
    """A time budget that began at ``started`` (of ``time.perf_counter``), and the record that is told what came of it."""

    def __init__(self, writer: RecordWriter, budget_s: float, started: float) -> None:
        self.writer = writer
        self.budget_s = budget_s
        self.started = started

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
            self.skip(name, f"it needs about {needs_s:.1f} s, and the time budget has {max(0.0, left):.1f} s left")
            return
        try:
            measure()
        except KeyboardInterrupt:
            self.skip(name, "interrupted")
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

    def skip(self, name: str, reason: str) -> None:
        """Write that a measurement was not made."""
        self.writer.write("skipped", {"name": name, "reason": reason})
