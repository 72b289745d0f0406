"""Writes the run directory while a program runs. Every event is one ``write`` of one line."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from valgap.errors import RecordError
from valgap.record.encoding import EVENTS_FILE, SCHEMA, dump_line

# Freed when the disk is full, so that the last line ("stopped: no space left") still fits.
RESERVE_FILE = ".reserve"
RESERVE_BYTES = 16_384


class RecordWriter:
    """An open run directory. Never raises while writing: a full disk ends the record, not the program."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stopped: str | None = None
        self._started = time.time()
        self._file = -1
        try:
            path.mkdir(parents=True, exist_ok=True)
            (path / RESERVE_FILE).write_bytes(b"\0" * RESERVE_BYTES)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
            self._file = os.open(path / EVENTS_FILE, flags, 0o644)
        except FileExistsError as error:
            raise RecordError(f"{path} already holds a record: choose another --out, nothing is overwritten") from error
        except OSError as error:
            raise RecordError(f"cannot write the record to {path}: {error.strerror}; choose another place with --out") from error
        self._size = 0
        self._pid = os.getpid()
        self.write("header", {"schema": SCHEMA, "started": self._started, "pid": self._pid})

    def write(self, kind: str, body: dict[str, Any]) -> None:
        """Append one event. After a full disk, or in a forked child, this does nothing."""
        if self.stopped is not None or self._file < 0 or os.getpid() != self._pid:
            return
        line = dump_line(kind, {**body, "at": round(time.time() - self._started, 3)})
        try:
            self._write_all(line)
        except OSError as error:
            self._stop(error.strerror or str(error))

    def _write_all(self, line: bytes) -> None:
        done = 0
        while done < len(line):
            done += os.write(self._file, line[done:])
        self._size += len(line)

    def _stop(self, reason: str) -> None:
        self.stopped = reason
        try:
            os.ftruncate(self._file, self._size)  # drop the half-written line
            (self.path / RESERVE_FILE).unlink(missing_ok=True)
            self._write_all(dump_line("stopped", {"reason": reason}))
        except OSError:
            pass  # the reader then says that the record has no end

    def close(self) -> None:
        """Close the file; nothing can be written afterwards."""
        if self._file < 0 or os.getpid() != self._pid:
            return
        os.close(self._file)
        self._file = -1
        (self.path / RESERVE_FILE).unlink(missing_ok=True)
