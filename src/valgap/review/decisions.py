"""Decisions about images: one row of a CSV file each, written through to the disk at once; the last one counts."""

from __future__ import annotations

import csv
import io
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
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
        self._made: list[Decision] = []
        self._ends_whole = True
        self._whole: int | None = None  # bytes before a row that a crash cut off; None: nothing was cut off
        if file.exists():
            self._read()

    def current(self) -> Mapping[str, Decision]:
        """The decision that counts for each path."""
        return {d.path: d for d in self._made}

    def __len__(self) -> int:
        return len(self.current())

    def make(self, decision: Decision) -> None:
        """Add a decision; it is on the disk when this returns. Raises DataError where it cannot be."""
        if decision.kind not in KINDS:
            raise DataError(f"a decision is one of {', '.join(KINDS)}, not {decision.kind!r}")
        if decision.kind == "relabel" and not decision.label:
            raise DataError("to relabel an image, a label is needed")
        with self._lock:
            self._append(decision, decision.kind)
            self._made.append(decision)

    def undo(self) -> Decision | None:
        """Take back the last decision that still counts, and return it; None where there is none."""
        with self._lock:
            if not self._made:
                return None
            last = self._made[-1]
            self._append(last, UNDO)
            self._made.pop()
            return last

    def _append(self, decision: Decision, kind: str) -> None:
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        if not self.file.exists() or self.file.stat().st_size == 0 or self._whole == 0:
            writer.writerow(COLUMNS)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        writer.writerow((stamp, decision.path, kind, decision.label, decision.split, decision.given, decision.cause))
        text = stream.getvalue() if self._ends_whole or self._whole is not None else "\n" + stream.getvalue()
        data = text.encode("utf-8", "surrogateescape")
        try:
            if self._whole is not None:
                os.truncate(self.file, self._whole)
                self._whole, self._ends_whole = None, True
            handle = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                while data:
                    data = data[os.write(handle, data) :]
                os.fsync(handle)
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
                self._made.append(Decision(row[1], row[2], row[3], row[4], row[5], row[6]))

    def _take_back(self, path: str) -> None:
        for place in range(len(self._made) - 1, -1, -1):
            if self._made[place].path == path:
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
