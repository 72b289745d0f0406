"""What was measured on image files, kept on disk under the files' content: a second look costs a read and no decode.

A row has a checksum: one that holds something else than what was written is none, and is written anew.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from valgap.features.looking import THUMB_SIDE, Look

FILE = "images-1.sqlite"
# About 14 kB an image: 2 GiB hold some 150,000 images. The oldest rows go first.
MAX_BYTES = 2 << 30
Row = tuple[Look, npt.NDArray[np.float16] | None]


class LookCache:
    """Looks with their features by content and backbone. A cache that cannot be used is none; nothing fails for it."""

    def __init__(self, key: str) -> None:
        from valgap.engine.store import cache_folder  # with it comes torch, which who looks at no image has no need of

        self._key = key
        self._database = _open(cache_folder())

    def get(self, digests: Sequence[bytes]) -> dict[bytes, Row]:
        """Those that are known, of the contents given."""
        if self._database is None:
            return {}
        found: dict[bytes, Row] = {}
        for start in range(0, len(digests), 500):
            part = list(digests[start : start + 500])
            marks = ",".join("?" * len(part))
            query = f"SELECT digest, facts, thumb, features FROM look WHERE backbone = ? AND digest IN ({marks})"
            try:
                rows = self._database.execute(query, [self._key, *part]).fetchall()
            except sqlite3.Error:
                return found
            unpacked = ((digest, _unpack(digest, facts, thumb, features)) for digest, facts, thumb, features in rows)
            found |= {digest: row for digest, row in unpacked if row is not None}
        return found

    def put(self, rows: Iterable[Row]) -> None:
        """Keep these."""
        if self._database is None:
            return
        packed = [(look.digest, self._key, *_pack(look, features)) for look, features in rows]
        try:
            with self._database:
                self._database.executemany("INSERT OR REPLACE INTO look VALUES (?, ?, ?, ?, ?)", packed)
        except sqlite3.Error:
            self._database = None

    def close(self) -> None:
        """Drop the oldest rows above the limit and let go of the file."""
        if self._database is None:
            return
        try:
            (pages,), (size,) = (self._database.execute(f"PRAGMA {n}").fetchone() for n in ("page_count", "page_size"))
            if pages * size > MAX_BYTES:
                with self._database:
                    half = "SELECT rowid FROM look ORDER BY rowid LIMIT (SELECT COUNT(*) / 2 FROM look)"
                    self._database.execute(f"DELETE FROM look WHERE rowid IN ({half})")
                self._database.execute("VACUUM")
            self._database.close()
        except sqlite3.Error:
            pass
        self._database = None


def _open(folder: Path) -> sqlite3.Connection | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(folder / FILE, timeout=10)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=OFF")
        database.execute(
            "CREATE TABLE IF NOT EXISTS look (digest BLOB, backbone TEXT, facts TEXT, thumb BLOB, features BLOB,"
            " PRIMARY KEY (digest, backbone))"
        )
    except (OSError, sqlite3.Error):
        return None
    return database


def _pack(look: Look, features: npt.NDArray[np.float16] | None) -> tuple[str, bytes | None, bytes | None]:
    facts = [look.error, look.pixels.hex(), look.numbers, look.words, look.odd]
    thumb = look.thumb.tobytes() if look.thumb is not None else None
    values = features.tobytes() if features is not None else None
    return json.dumps([_sum(look.digest, facts, thumb, values), *facts]), thumb, values


def _unpack(digest: bytes, facts: str, thumb: bytes | None, features: bytes | None) -> Row | None:
    """The row; None for one that is not as it was packed."""
    try:
        told, *rest = json.loads(facts)
        if told != _sum(digest, rest, thumb, features):
            return None
        error, pixels, numbers, words, odd = rest
        picture = np.frombuffer(thumb, np.uint8).reshape(THUMB_SIDE, THUMB_SIDE, 3) if thumb is not None else None
        look = Look(digest, error, bytes.fromhex(pixels), numbers, words, tuple(odd), picture)
        return look, np.frombuffer(features, np.float16) if features is not None else None
    except (ValueError, TypeError):
        return None


def _sum(digest: bytes, facts: Sequence[object], thumb: bytes | None, features: bytes | None) -> int:
    parts = (digest, json.dumps(facts).encode(), thumb or b"", features or b"")
    return zlib.crc32(b"".join(len(p).to_bytes(4, "little") + p for p in parts))
