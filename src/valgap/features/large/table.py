"""What was measured of each image of a large set, on disk: plain arrays, a file for each column, appended in blocks.

A row belongs to a file in one state (path, size, time of change), so that a check that was killed goes on where it was, and a
set that grew has only its new files looked at. Columns are read in blocks and let go of: what the machine keeps of them in its
page cache is no memory of this process.

Plain arrays and not Arrow or Parquet: every column has one fixed width, rows are read at random (pairs) as well as in blocks,
and a killed append has to leave a whole table. ``engine.store.Space`` is just that, and needs no further library.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from valgap.data.contents import state_of
from valgap.engine.store import SPARE_BYTES, TABLES, Space, cache_folder
from valgap.errors import ValgapError
from valgap.features.looking import NUMBERS, THUMB_SIDE, WORDS, Look
from valgap.types import FloatArray, IntArray

# Rows that are read at once: 60 MB of features.
BLOCK = 8192
# Rows here and there that are read through one map: with each the kernel maps 64 kB around it, which count as memory.
SCATTERED = 512
TEXT = {"error": 200, "odd": 64, **{w: 240 if w == "camera" else 16 for w in WORDS}}
# A table that nobody has used for so long may go when another needs its room.
STALE_S = 14 * 24 * 3600.0
Block = tuple[IntArray, npt.NDArray[np.float16]]


class LookTable:
    """The rows of one set of images. Places are those of the set; the rows behind them may lie in any order."""

    def __init__(self, paths: Sequence[str], key: str) -> None:
        """``key`` names what the features were made with."""
        self.paths = paths
        self.folder = folder_of(paths, key)
        self._space = Space(self.folder)
        self._keys = [_key(p) for p in paths]
        self._learn()

    def _learn(self) -> None:
        self._rows = self._space.places(self._keys)
        self._columns = {c.name: c for c in self._space.columns}
        self._count = int(self._rows.max(initial=-1)) + 1

    @property
    def missing(self) -> IntArray:
        """Places of the images that were not looked at yet, (n,)."""
        return np.flatnonzero(self._rows < 0)

    def make_room(self, row_bytes: int) -> None:
        """Raise ValgapError where the disk does not hold what is still missing; stale tables are deleted for it."""
        needed = row_bytes * len(self.missing) + SPARE_BYTES
        base = self.folder.parent
        base.mkdir(parents=True, exist_ok=True)
        for other in sorted(base.iterdir(), key=lambda f: f.stat().st_mtime):
            if shutil.disk_usage(base).free >= needed:
                break
            if other != self.folder and time.time() - other.stat().st_mtime > STALE_S:
                shutil.rmtree(other, ignore_errors=True)
        free = shutil.disk_usage(base).free
        if free < needed:
            raise ValgapError(
                f"the tables of {len(self.paths):,} images take {needed / 1e9:.1f} GB more in {base}, which has "
                f"{free / 1e9:.1f} GB: set VALGAP_CACHE to a folder with room, or check a part of the images"
            )

    def add(self, places: Sequence[int], looks: Sequence[Look], features: npt.NDArray[np.float16]) -> None:
        """Append images; ``features`` (n, W), nan where an image cannot be decoded."""
        n = len(looks)
        columns: dict[str, npt.NDArray[np.generic]] = {
            "digest": _bytes([look.digest for look in looks], n),
            "pixels": _bytes([look.pixels for look in looks], n),
            "numbers": np.array([[look.numbers.get(k, math.nan) for k in NUMBERS] for look in looks], np.float64),
            "thumb": np.stack([look.thumb if look.thumb is not None else _NO_THUMB for look in looks]),
            "features": features,
        }
        words = {"error": [look.error or "" for look in looks], "odd": [";".join(look.odd) for look in looks]}
        words |= {w: [look.words.get(w, "") for look in looks] for w in WORDS}
        for name, texts in words.items():
            columns[name] = np.array([_cut(t, TEXT[name]) for t in texts], f"S{TEXT[name]}")
        self.append(places, columns)

    def append(self, places: Sequence[int], columns: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Append rows of all columns, (n, ...) each."""
        self._space.append([self._keys[i] for i in places], columns)

    def refresh(self) -> None:
        """Learn of the rows that were added, mark the table as in use, and forget what only adding needs."""
        self._learn()
        self._keys, self._space = [], Space(self.folder)
        os.utime(self.folder)

    def take(self, column: str, places: npt.NDArray[np.integer], part: slice = slice(None)) -> npt.NDArray[np.generic]:
        """The rows (n, ...) of a column at ``places``, of ``part`` of their width."""
        rows = self._rows[places]
        if len(rows) > 1 and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
            together = self._mapped(column)[rows[0] : rows[-1] + 1]
            return np.array(together[:, part] if together.ndim > 1 else together)
        kind = self._columns[column]
        width = np.arange(kind.shape[0])[part] if kind.shape else None
        out = np.empty((len(rows), *((len(width),) if width is not None else ()), *kind.shape[1:]), kind.dtype)
        for start in range(0, len(rows), SCATTERED):
            values = self._mapped(column)[rows[start : start + SCATTERED]]
            out[start : start + SCATTERED] = values[:, part] if values.ndim > 1 else values
        return out

    def _mapped(self, column: str) -> npt.NDArray[np.generic]:
        """A column as it lies on disk, for one use: pages of a lasting map would count as memory of this process."""
        kind = self._columns[column]
        return np.asarray(np.memmap(self.folder / f"{column}.bin", kind.dtype, "r", shape=(self._count, *kind.shape)))

    def blocks(self, column: str, places: IntArray | None = None) -> Iterator[tuple[IntArray, npt.NDArray[np.generic]]]:
        """(places, their rows) of a column, BLOCK at a time, in order."""
        wanted = places if places is not None else np.arange(len(self.paths))
        for start in range(0, len(wanted), BLOCK):
            part = wanted[start : start + BLOCK]
            yield part, self.take(column, part)

    def column(self, name: str) -> npt.NDArray[np.generic]:
        """A whole narrow column (N, ...) in memory."""
        parts = [values for _, values in self.blocks(name)]
        return np.concatenate(parts)

    def words(self, name: str) -> tuple[str, ...]:
        """(N,) a column of text; equal texts are one object."""
        known: dict[bytes, str] = {}
        out: list[str] = []
        for _, values in self.blocks(name):
            for raw in values.tolist():
                text = known.get(raw)
                if text is None:
                    text = known[raw] = raw.decode("utf-8", "replace")
                out.append(text)
        return tuple(out)

    def content(self) -> str:
        """A name of all that the table says of these images: results that follow from it are kept under this."""
        digest = hashlib.blake2b(digest_size=8)
        for _, values in self.blocks("digest"):
            digest.update(values.tobytes())
        return digest.hexdigest()


class DiskFeatures:
    """Columns of the features of a table, float32; indexed like an array by places, or ``[:, 0]``, and read when asked for."""

    def __init__(self, table: LookTable, start: int, stop: int, readable: npt.NDArray[np.bool_]) -> None:
        self._table, self._part, self._readable = table, slice(start, stop), readable
        self.shape = (len(readable), stop - start)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: object) -> FloatArray:
        """Rows at an array of places or a slice of them; of ``[:, 0]`` only whether each is known (0) or not (nan)."""
        if isinstance(index, tuple):
            if index != (slice(None), 0):
                raise IndexError(f"features on disk are read by rows, not by {index}")
            return np.where(self._readable, 0.0, np.nan).astype(np.float32)
        places = np.arange(len(self))[index] if isinstance(index, slice) else np.asarray(index)
        return np.asarray(self._table.take("features", places, self._part), np.float32)

    def blocks(self, places: IntArray) -> Iterator[tuple[IntArray, FloatArray]]:
        """(places, their rows), BLOCK at a time."""
        for start in range(0, len(places), BLOCK):
            yield places[start : start + BLOCK], self[places[start : start + BLOCK]]


_NO_THUMB = np.zeros((THUMB_SIDE, THUMB_SIDE, 3), np.uint8)


def folder_of(paths: Sequence[str], key: str) -> Path:
    """Where the table of a set lies: named by the folder that all images lie in, so that a set that grew finds its own."""
    first = min(paths)
    shared = os.path.commonprefix([first, max(paths)]).rpartition("/")[0]  # noqa: RUF071 (of any addresses)
    below = "" if Path(first).is_absolute() or "://" in first else Path.cwd()
    name = hashlib.blake2b(f"{below}\0{shared}\0{key}".encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return cache_folder() / TABLES / name


def kept(
    folder: Path, name: str, content: str, make: Callable[[], dict[str, npt.NDArray[np.generic]]]
) -> dict[str, npt.NDArray[np.generic]]:
    """Arrays that ``make`` gives, read back where they were made of this very content before."""
    file = folder / f"{name}-{content}.npz"
    try:
        with np.load(file) as found:
            return dict(found)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error):  # damaged: members have checksums
        pass
    made = make()
    for old in folder.glob(f"{name}-*.npz"):
        old.unlink(missing_ok=True)
    part = file.with_suffix(f".{os.getpid()}")
    try:
        with part.open("wb") as target:
            np.savez(target, **made)  # type: ignore[arg-type]
        part.replace(file)
    except OSError:  # a full disk: made again next time
        part.unlink(missing_ok=True)
    return made


def _key(path: str) -> bytes:
    return hashlib.blake2b(f"{path}\0{state_of(path)}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _bytes(values: Sequence[bytes], n: int) -> npt.NDArray[np.uint8]:
    return np.frombuffer(b"".join(v.ljust(16, b"\0") for v in values), np.uint8).reshape(n, 16)


def _cut(text: str, most: int) -> bytes:
    return text.encode("utf-8", "replace")[:most]
