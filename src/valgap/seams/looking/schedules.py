"""The learning-rate schedules that a program made."""

from __future__ import annotations

import weakref
from typing import Any

from valgap.record.writer import RecordWriter
from valgap.seams.looking.described import SCHEDULE_SETTINGS, plain
from valgap.seams.looking.samples import Registry


class Schedules:
    """Knows every schedule and its optimizer, and keeps neither alive."""

    def __init__(self, writer: RecordWriter) -> None:
        self.writer = writer
        self._made: list[tuple[weakref.ref[Any], str, Any]] = []  # (schedule, its class, its optimizer)

    def add(self, schedule: Any) -> None:
        """A schedule was made."""
        if any(made() is schedule for made, _, _ in self._made):
            return
        optimizer = getattr(schedule, "optimizer", None)
        self._made.append((weakref.ref(schedule), type(schedule).__name__, optimizer and weakref.ref(optimizer)))

    def write(self, pass_index: int, optimizers: Registry) -> None:
        """Write where every living schedule stands at the end of a training pass."""
        for reference, kind, of in self._made:
            schedule, optimizer = reference(), of() if of else None
            if schedule is None or optimizer is None:
                continue
            settings = {k: plain(getattr(schedule, k, None)) for k in SCHEDULE_SETTINGS}
            self.writer.write(
                "schedule",
                {
                    "pass": pass_index,
                    "optimizer": optimizers.number(optimizer)[0],
                    "kind": kind,
                    "steps": int(getattr(schedule, "last_epoch", -1)),
                    "settings": {k: v for k, v in settings.items() if v is not None},
                },
            )
