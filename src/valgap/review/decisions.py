"""Decisions about images: one row of a CSV file each, written through to the disk at once; the last one counts.

What was decided together shares its time, which is given to the microsecond and belongs to nothing else: it is undone together.
"""

from __future__ import annotations

import csv
import io
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from pathlib import Path

from valgap.errors import DataError

COLUMNS = ("time", "path", "decision", "label", "split", "given", "cause")
KINDS = ("keep", "relabel", "drop", "unsure")
UNDO = "undo"
FILE = "decisions.csv"
MAX_TORN = 20_000  # characters: no row is longer


@dataclass(frozen=True)
class Decision:
    """What somebody decided about one image."""

    path: str
    kind: str  # one of KINDS
    label: str = ""  # the new label, for "relabel"
    split: str = ""  # "train", "val" or unknown
    given: str = ""  # the label that it had
    cause: str = ""  # the code of the finding that showed it


class Decisions:
    """The decisions in a file. Nothing in it is ever changed: an undo is a row as well."""

    def __init__(self, file: Path) -> None:
        """Read what is there; rows that are not ours raise DataError, a row that was cut off is left out."""
        self.file = file
        self._lock = threading.Lock()
        self._made: list[tuple[str, Decision]] = []  # with the time of each
        self._time = datetime.fromtimestamp(0).astimezone()
        self._ends_whole = True
        self._whole: int | None = None  # bytes before a row that a crash cut off; None: nothing was cut off
        if file.exists():
            self._read()

    def current(self) -> Mapping[str, Decision]:
        """The decision that counts for each path."""
        return {d.path: d for _, d in self._made}

    def __len__(self) -> int:
        return len(self.current())

    def make(self, *decisions: Decision) -> None:
        """Add decisions that were made together; all are on the disk when this returns. Raises DataError where they cannot be."""
        for one in decisions:
            if one.kind not in KINDS:
                raise DataError(f"a decision is one of {', '.join(KINDS)}, not {one.kind!r}")
            if one.kind == "relabel" and not one.label:
                raise DataError("to relabel an image, a label is needed")
        with self._lock:
            stamp = self._stamp()
            self._append(stamp, [(one, one.kind) for one in decisions])
            self._made += [(stamp, one) for one in decisions]

    def undo(self) -> list[Decision]:
        """Take back what was decided last and still counts, and return it, the last one first; empty where there is nothing."""
        with self._lock:
            together = self._last_together()
            if together:
                self._append(self._stamp(), [(one, UNDO) for one in together])
                del self._made[-len(together) :]
            return together

    def _last_together(self) -> list[Decision]:
        if not self._made:
            return []
        last = self._made[-1][0]
        if "." not in last:  # written when the time was given in seconds: each one for itself
            return [self._made[-1][1]]
        return [one for _, one in takewhile(lambda made: made[0] == last, reversed(self._made))]

    def _stamp(self) -> str:
        """The time now, later than that of any decision of ours before."""
        self._time = max(datetime.now().astimezone(), self._time + timedelta(microseconds=1))
        return self._time.strftime("%Y-%m-%dT%H:%M:%S.%f%z")

    def _append(self, stamp: str, rows: Sequence[tuple[Decision, str]]) -> None:
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        if not self.file.exists() or self.file.stat().st_size == 0 or self._whole == 0:
            writer.writerow(COLUMNS)
        for one, kind in rows:
            writer.writerow((stamp, one.path, kind, one.label, one.split, one.given, one.cause))
        text = stream.getvalue() if self._ends_whole or self._whole is not None else "\n" + stream.getvalue()
        data = text.encode("utf-8", "surrogateescape")
        try:
            if self._whole is not None:
                os.truncate(self.file, self._whole)
                self._whole, self._ends_whole = None, True
            handle = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            before = os.fstat(handle).st_size
            try:
                while data:
                    data = data[os.write(handle, data) :]
                os.fsync(handle)
            except OSError:
                os.ftruncate(handle, before)  # what was made together is written whole or not at all
                raise
            finally:
                os.close(handle)
        except OSError as error:
            raise DataError(f"the decision could not be written to {self.file}: {error.strerror}") from error
        self._ends_whole = True

    def _read(self) -> None:
        text = self.file.read_bytes().decode("utf-8", "surrogateescape")
        rows, self._whole = _rows(text, self.file)
        self._ends_whole = text.endswith("\n") or not text
        if rows and tuple(rows[0]) != COLUMNS:
            raise DataError(f"{self.file} is no file of decisions: its first line should be {','.join(COLUMNS)}")
        for number, row in enumerate(rows[1:], 2):
            if not row:
                continue
            if len(row) != len(COLUMNS) or row[2] not in (*KINDS, UNDO):
                raise DataError(f"{self.file}, row {number}, is no decision: {','.join(row)[:100]!r}")
            if row[2] == UNDO:
                self._take_back(row[1])
            else:
                self._made.append((row[0], Decision(row[1], row[2], row[3], row[4], row[5], row[6])))

    def _take_back(self, path: str) -> None:
        for place in range(len(self._made) - 1, -1, -1):
            if self._made[place][1].path == path:
                del self._made[place]
                return


def _rows(text: str, file: Path) -> tuple[list[list[str]], int | None]:
    """(rows, bytes before a row at the end that was cut off by a crash; None where all are whole)."""
    rows = _parsed(text)
    if rows is not None and (not rows or len(rows[-1]) in (0, len(COLUMNS))):
        return rows, None
    end = len(text)
    while end > max(0, len(text) - MAX_TORN):
        end = text.rfind("\n", 0, max(0, end - 1)) + 1
        rows = _parsed(text[:end])
        if rows is not None:
            return rows, len(text[:end].encode("utf-8", "surrogateescape"))
    raise DataError(f"{file} is no file of decisions: its quotation marks do not match")


def _parsed(text: str) -> list[list[str]] | None:
    try:
        return list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error:
        return None
