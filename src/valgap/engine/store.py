"""The feature cache on disk: rows of numbers by image content, memory-mapped, bounded in size.

One folder (a *space*) for one network, preprocessing and view. ``rows`` lists the digests of the images' files, 16 bytes
each; ``NAME.bin`` holds one array row for each of them, ``sums`` a checksum. Columns are appended before ``sums`` and ``rows``:
whatever was cut off in between does not count, and a row that holds something else than what was written (a machine that lost
its power, a bad disk) is none. Several processes may append; they take turns by a lock.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from valgap.data.contents import read_content

DIGEST_BYTES = 16
LIMIT_BYTES = 4 << 30
# Of the disk, this much is always left free.
SPARE_BYTES = 512 << 20
# What else of ours lies in the cache folder. Nothing else is ever deleted there: the user chose the folder.
OWN_FILES = ("forwards.json", "images-*.sqlite*", "network-*.xml", "network-*.bin")
# Tables of large sets of images, and long lists of findings.
OWN_FOLDERS = (TABLES, LISTS) = ("tables", "lists")
ROWS, SUMS, COLUMNS, FACTS = "rows", "sums", "columns.json", "facts.json"
SUM_BYTES = 4
# Bytes of rows that are read at once to hold them against their checksums.
READ_BYTES = 32 << 20
# Decoded images have a file each, in a folder beside the spaces of features.
DECODED = ".npy"


def cache_folder() -> Path:
    """Where features are kept: $VALGAP_CACHE, else valgap/ in the user's cache folder."""
    given = os.environ.get("VALGAP_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(given) if given else Path(base) / "valgap"


def cache_limit() -> int:
    """The most bytes that the cache may hold: $VALGAP_CACHE_GB, else 4 GiB."""
    given = os.environ.get("VALGAP_CACHE_GB")
    try:
        return int(float(given) * (1 << 30)) if given else LIMIT_BYTES
    except ValueError:
        return LIMIT_BYTES


def file_digest(path: str | Path) -> bytes:
    """16 bytes that stand for the content of a file, or of what lies at an address (`valgap.data.contents`)."""
    return hashlib.blake2b(read_content(path), digest_size=DIGEST_BYTES).digest()


@dataclass(frozen=True)
class Column:
    """One array of a space: a row has this shape and dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


class Space:
    """The rows of one network, preprocessing and view."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._places: dict[bytes, int] = {}
        self._read = 0
        self._sound = np.zeros(0, bool)  # rows that were held against their checksums

    @property
    def columns(self) -> tuple[Column, ...]:
        """What a row consists of; empty before the first append."""
        try:
            body = json.loads((self.folder / COLUMNS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return ()
        return tuple(Column(c["name"], tuple(c["shape"]), c["dtype"]) for c in body)

    def places(self, digests: Sequence[bytes]) -> npt.NDArray[np.int64]:
        """(N,) the row of each digest, -1 where there is none, or a damaged one."""
        self._refresh()
        found = np.array([self._places.get(d, -1) for d in digests], np.int64)
        damaged = self._damaged(np.unique(found[found >= 0]))
        if damaged:
            self._places = {d: row for d, row in self._places.items() if row not in damaged}
            found[np.isin(found, list(damaged))] = -1
        return found

    def _damaged(self, rows: npt.NDArray[np.int64]) -> set[int]:
        """Those of the rows, in ascending order, that are not what was written; each is read once."""
        unread = rows[~self._sound[rows]]
        if not len(unread):
            return set()
        columns = self.columns
        step = max(1, READ_BYTES // max(1, sum(c.row_bytes for c in columns)))
        bad: set[int] = set()
        for run in np.split(unread, np.flatnonzero(np.diff(unread) > 1) + 1):
            for start in range(0, len(run), step):
                part = run[start : start + step]
                bad |= {
                    int(row) for row, right in zip(part, self._right(int(part[0]), len(part), columns), strict=True) if not right
                }
        self._sound[[row for row in unread.tolist() if row not in bad]] = True
        return bad

    def _right(self, first: int, count: int, columns: Sequence[Column]) -> npt.NDArray[np.bool_]:
        """Whether each of so many rows from ``first`` on has its checksum."""
        try:
            digests = _part(self.folder / ROWS, first, count, DIGEST_BYTES)
            sums = sums_of(digests, [_part(self._file(c), first, count, c.row_bytes) for c in columns])
            written = np.frombuffer(b"".join(_part(self.folder / SUMS, first, count, SUM_BYTES)), "<u4")
        except OSError:
            return np.zeros(count, bool)
        return np.asarray(sums == written) if len(written) == count else np.zeros(count, bool)

    def _refresh(self) -> None:
        columns = self.columns
        try:
            listed = (self.folder / ROWS).read_bytes()
            summed = (self.folder / SUMS).stat().st_size // SUM_BYTES
            whole = min([len(listed) // DIGEST_BYTES, summed, *(self._file(c).stat().st_size // c.row_bytes for c in columns)])
        except OSError:
            whole, listed = 0, b""
        if whole < self._read:
            self._places, self._read, self._sound = {}, 0, np.zeros(0, bool)
        for row in range(self._read, whole):  # of two, the later one was written because the other is damaged
            self._places[listed[row * DIGEST_BYTES : (row + 1) * DIGEST_BYTES]] = row
        self._sound = np.concatenate([self._sound, np.zeros(whole - self._read, bool)])
        self._read = whole

    def _file(self, column: Column) -> Path:
        return self.folder / f"{column.name}.bin"

    def append(self, digests: Sequence[bytes], arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Add rows; ``arrays`` holds (N, ...) of every column. Raises OSError where the disk is full."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(str(self.folder / "lock")):
            if not self.columns:
                kinds = [{"name": n, "shape": a.shape[1:], "dtype": a.dtype.str} for n, a in arrays.items()]
                (self.folder / COLUMNS).write_text(json.dumps(kinds), encoding="utf-8")
            known = self.places(digests)
            fresh = [i for i, place in enumerate(known.tolist()) if place < 0]
            names = [digests[i] for i in fresh]
            bodies = []
            for column in self.columns:
                body = arrays[column.name][fresh].tobytes()
                _write_at(self._file(column), self._read * column.row_bytes, body)
                bodies.append([body[i * column.row_bytes : (i + 1) * column.row_bytes] for i in range(len(fresh))])
            _write_at(self.folder / SUMS, self._read * SUM_BYTES, sums_of(names, bodies).tobytes())
            _write_at(self.folder / ROWS, self._read * DIGEST_BYTES, b"".join(names))

    def column(self, name: str) -> npt.NDArray[np.generic]:
        """All rows of a column (R, ...), memory-mapped and read-only."""
        self._refresh()
        column = next(c for c in self.columns if c.name == name)
        return np.memmap(self._file(column), column.dtype, "r", shape=(self._read, *column.shape))


def sums_of(digests: Sequence[bytes], columns: Sequence[Sequence[bytes]]) -> npt.NDArray[np.uint32]:
    """(N,) a checksum of each row: its digest, then its bytes of every column."""
    sums = [zlib.crc32(digest) for digest in digests]
    for column in columns:
        sums = [zlib.crc32(body, before) for body, before in zip(column, sums, strict=True)]
    return np.array(sums, "<u4")


def _part(path: Path, first: int, count: int, row_bytes: int) -> list[bytes]:
    """The bytes of each of so many rows from ``first`` on; read, not mapped: mapped pages count as memory of this process."""
    with path.open("rb") as file:
        file.seek(first * row_bytes)
        body = file.read(count * row_bytes)
    return [body[i * row_bytes : (i + 1) * row_bytes] for i in range(count)]


def _write_at(path: Path, offset: int, body: bytes) -> None:
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.truncate(offset)
        file.seek(offset)
        file.write(body)


@dataclass(frozen=True)
class Usage:
    """What one space takes."""

    name: str
    about: str
    rows: int
    bytes: int
    age_s: float


class FeatureStore:
    """All spaces below one folder."""

    def __init__(self, folder: Path | None = None, limit_bytes: int | None = None) -> None:
        self.folder = folder if folder is not None else cache_folder()
        self.limit_bytes = limit_bytes if limit_bytes is not None else cache_limit()

    @property
    def spaces_folder(self) -> Path:
        """Where the spaces lie."""
        return self.folder / "features"

    def space(self, key: str, about: str) -> Space:
        """The space called ``key``, marked as in use now; ``about`` is what people read of it."""
        space = Space(self.spaces_folder / key)
        try:
            space.folder.mkdir(parents=True, exist_ok=True)
            (space.folder / FACTS).write_text(about, encoding="utf-8")
            os.utime(space.folder)
        except OSError:
            pass  # a full or read-only disk: the space will then not be written either
        return space

    def make_room(self, needed_bytes: int, keep: Space) -> bool:
        """Whether so many more bytes fit; the spaces unused for longest are deleted for them, never ``keep``."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free
        except OSError:
            return False
        spaces = sorted(self.usage(), key=lambda u: -u.age_s)
        own = next((u.bytes for u in spaces if u.name == keep.folder.name), 0)
        if own + needed_bytes > self.limit_bytes:
            return False
        total = sum(u.bytes for u in spaces)
        for old in spaces:
            if total + needed_bytes <= self.limit_bytes and needed_bytes + SPARE_BYTES <= free:
                break
            if old.name != keep.folder.name:
                shutil.rmtree(self.spaces_folder / old.name, ignore_errors=True)
                total, free = total - old.bytes, free + old.bytes
        return total + needed_bytes <= self.limit_bytes and needed_bytes + SPARE_BYTES <= free

    def usage(self) -> list[Usage]:
        """Every space with its size, the least recently used last."""
        found = []
        for folder in self.spaces_folder.iterdir() if self.spaces_folder.is_dir() else ():
            size = sum(f.stat().st_size for f in folder.iterdir())
            listed = folder / ROWS
            rows = listed.stat().st_size // DIGEST_BYTES if listed.exists() else len(list(folder.glob(f"*{DECODED}")))
            about = (folder / FACTS).read_text(encoding="utf-8") if (folder / FACTS).exists() else ""
            found.append(Usage(folder.name, about, rows, size, time.time() - folder.stat().st_mtime))
        return sorted(found, key=lambda u: u.age_s)

    def others(self) -> dict[str, int]:
        """Name and bytes of what else lies in the cache folder: remembered choices, measurements of image files, their tables."""
        found = [p for pattern in OWN_FILES for p in self.folder.glob(pattern)]
        folders = {n: sum(f.stat().st_size for f in (self.folder / n).rglob("*") if f.is_file()) for n in OWN_FOLDERS}
        return {p.name: p.stat().st_size for p in sorted(found)} | {n: size for n, size in folders.items() if size}

    def clear(self) -> int:
        """Delete all that the cache holds; returns the bytes freed."""
        freed = sum(u.bytes for u in self.usage()) + sum(self.others().values())
        shutil.rmtree(self.spaces_folder, ignore_errors=True)
        for name in self.others():
            if name not in OWN_FOLDERS:
                (self.folder / name).unlink(missing_ok=True)
        for name in OWN_FOLDERS:
            shutil.rmtree(self.folder / name, ignore_errors=True)
        return freed
