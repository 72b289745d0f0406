"""Writes the run directory while a program runs. Every event is one ``write`` of one line.

Each process of a program has a file of its own: the first one (rank 0) ``events.jsonl``, the others one below ``parts``.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from valgap.errors import RecordError
from valgap.record.encoding import EVENTS_FILE, PARTS, SCHEMA, dump_line

# Freed when the disk is full, so that the last line ("stopped: no space left") still fits.
RESERVE_FILE = ".reserve"
RESERVE_BYTES = 16_384
# What a process must do to be worth a part: a model was called on images.
FIRST = "pass_begin"
MAX_HELD = 10_000  # lines that wait for it; a process that never calls a model writes nothing


class RecordWriter:
    """An open run directory. Never raises while writing: a full disk ends the record, not the program.

    Args:
        path: the run directory.
        name: of the part, for another process than the first.
        facts: what its header says of the process.
        waits: open no file before a model is called; for processes of which nobody knows what they do.
    """

    def __init__(self, path: Path, name: str = "", facts: Mapping[str, Any] | None = None, waits: bool = False) -> None:
        self.path = path
        self.name = name
        self.stopped: str | None = None
        self._facts = dict(facts or {})
        self._started = time.time()
        self._file = -1
        self._size = 0
        self._pid = os.getpid()
        self._reserve = path / RESERVE_FILE if not name else path / PARTS / f"{RESERVE_FILE}-{name}"
        self._held: list[tuple[str, dict[str, Any]]] | None = [] if waits else None
        if not waits:
            self._open()

    @property
    def waiting(self) -> bool:
        """Whether nothing has been written yet."""
        return self._held is not None

    def _open(self) -> None:
        path = self.path
        file = path / EVENTS_FILE if not self.name else path / PARTS / f"{self.name}.jsonl"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
            self._file = os.open(file, flags, 0o644)
            self._reserve.write_bytes(b"\0" * RESERVE_BYTES)
        except FileExistsError as error:
            raise RecordError(f"{path} already holds a record: choose another --out, nothing is overwritten") from error
        except OSError as error:
            raise RecordError(f"cannot write the record to {path}: {error.strerror}; choose another place with --out") from error
        self.write("header", {"schema": SCHEMA, "started": self._started, "pid": self._pid, **self._facts})

    def write(self, kind: str, body: dict[str, Any]) -> None:
        """Append one event. After a full disk, or in a forked child, this does nothing."""
        if self.stopped is not None or os.getpid() != self._pid:
            return
        timed = {"at": round(time.time() - self._started, 3), **body}
        if self._held is not None and not self._begin(kind, timed):
            return
        if self._file < 0:
            return
        line = dump_line(kind, timed)
        try:
            self._write_all(line)
        except OSError as error:
            self._stop(error.strerror or str(error))

    @property
    def descriptor(self) -> int:
        """Of the open file; -1 where there is none."""
        return self._file

    def move(self, path: Path, waited: float) -> None:
        """Go on in another run directory, as a fork of the process that wrote so far: what was written is copied there.

        ``waited``: seconds that do not count.
        """
        shutil.copytree(self.path, path, dirs_exist_ok=True)
        os.close(self._file)
        flags = os.O_WRONLY | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
        self._file = os.open(path / EVENTS_FILE, flags)
        self.path, self._reserve = path, path / RESERVE_FILE
        self._pid = os.getpid()
        self._started += waited

    def _begin(self, kind: str, body: dict[str, Any]) -> bool:
        """Write what was held back, where this event makes it worth it; else hold it back too."""
        assert self._held is not None
        if kind != FIRST:
            if len(self._held) < MAX_HELD:
                self._held.append((kind, body))
            return False
        held, self._held = self._held, None
        name, number = self.name, 2
        while True:
            try:
                self._open()
                break
            except RecordError as error:
                if not isinstance(error.__cause__, FileExistsError) or number > MAX_HELD:
                    self.stopped = str(error)
                    return False
                self.name = f"{name}-{number}"  # a process number, or a rank, that was there before
                number += 1
        for one in held:
            self.write(*one)
        return True

    def _write_all(self, line: bytes) -> None:
        done = 0
        while done < len(line):
            done += os.write(self._file, line[done:])
        self._size += len(line)

    def _stop(self, reason: str) -> None:
        self.stopped = reason
        try:
            os.ftruncate(self._file, self._size)  # drop the half-written line
            self._reserve.unlink(missing_ok=True)
            self._write_all(dump_line("stopped", {"reason": reason}))
        except OSError:
            pass  # the reader then says that the record has no end

    def close(self) -> None:
        """Close the file; nothing can be written afterwards."""
        if self._file < 0 or os.getpid() != self._pid:
            return
        os.close(self._file)
        self._file = -1
        self._reserve.unlink(missing_ok=True)
