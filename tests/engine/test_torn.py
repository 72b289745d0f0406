"""A cache that was torn or spoilt on the disk gives nothing rather than something else, and is written anew."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from valgap.engine.decoded import Pictures
from valgap.engine.store import FeatureStore, Space
from valgap.features.cache import FILE, LookCache
from valgap.features.looking import THUMB_SIDE, Look

NAMES = [bytes([n]) * 16 for n in range(6)]
ROWS = {"a": np.arange(60, dtype=np.float32).reshape(6, 10), "b": np.arange(6, dtype=np.int64)}


def spoil(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 0xFF
    file.write_bytes(data)


@pytest.mark.parametrize(("file", "place", "row"), [("a.bin", 2 * 40 + 3, 2), ("b.bin", 5 * 8, 5), ("sums", 4 * 4, 4)])
def test_a_spoilt_row_is_none_and_is_written_anew(file: str, place: int, row: int, tmp_path: Path) -> None:
    Space(tmp_path).append(NAMES, ROWS)
    spoil(tmp_path / file, place)
    space = Space(tmp_path)
    assert space.places(NAMES).tolist() == [-1 if i == row else i for i in range(6)]
    space.append(NAMES, ROWS)
    for one in (space, Space(tmp_path)):
        found = one.places(NAMES)
        assert found.tolist() == [6 if i == row else i for i in range(6)]
        for name, values in ROWS.items():
            assert (one.column(name)[found] == values).all()


def test_a_spoilt_name_is_no_other_image(tmp_path: Path) -> None:
    Space(tmp_path).append(NAMES, ROWS)
    data = bytearray((tmp_path / "rows").read_bytes())
    data[16:32] = other = b"x" * 16
    (tmp_path / "rows").write_bytes(data)
    assert Space(tmp_path).places([NAMES[0], NAMES[1], other]).tolist() == [0, -1, -1]


@pytest.mark.parametrize("cut", ["a.bin", "b.bin", "sums", "rows"])
def test_rows_that_were_cut_off_do_not_count(cut: str, tmp_path: Path) -> None:
    Space(tmp_path).append(NAMES, ROWS)
    data = (tmp_path / cut).read_bytes()
    (tmp_path / cut).write_bytes(data[: len(data) * 3 // 4])
    space = Space(tmp_path)
    assert space.places(NAMES).tolist() == [0, 1, 2, 3, -1, -1]
    space.append(NAMES, ROWS)
    assert (space.column("a")[space.places(NAMES)] == ROWS["a"]).all()


def test_a_spoilt_picture_is_decoded_again(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"x")
    pixels = np.arange(300, dtype=np.uint8).reshape(10, 10, 3)
    store = FeatureStore(tmp_path / "cache")
    asked: list[Path] = []

    def decode(path: Path) -> np.ndarray:
        asked.append(path)
        return pixels

    pictures = Pictures([tmp_path / "x.jpg"], decode, "key", 300, store)
    assert (pictures[0] == pixels).all() and (pictures[0] == pixels).all() and len(asked) == 1
    for place in (200, -1):  # in the pixels, and in the checksum
        spoil(pictures.files[0], place)
        assert (pictures[0] == pixels).all()
    assert (pictures[0] == pixels).all() and len(asked) == 3


@pytest.mark.parametrize("column", ["thumb", "features", "facts"])
def test_a_spoilt_look_is_looked_at_again(column: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VALGAP_CACHE", str(tmp_path))
    thumb = np.full((THUMB_SIDE, THUMB_SIDE, 3), 7, np.uint8)
    looks = [Look(n, None, n, {"bytes": 3.0}, {"format": "JPEG"}, ("alpha",), thumb) for n in NAMES[:2]]
    features = np.arange(4, dtype=np.float16)
    cache = LookCache("key")
    cache.put([(look, features) for look in looks])
    assert set(cache.get(NAMES)) == set(NAMES[:2])
    cache.close()
    with sqlite3.connect(tmp_path / FILE) as database:
        spoilt = {"thumb": thumb.tobytes()[:-1] + b"x", "features": features[::-1].tobytes(), "facts": "[1]"}[column]
        database.execute(f"UPDATE look SET {column} = ? WHERE digest = ?", [spoilt, NAMES[0]])
    cache = LookCache("key")
    assert set(cache.get(NAMES)) == {NAMES[1]}
    cache.put([(looks[0], features)])
    assert (cache.get(NAMES)[NAMES[0]][1] == features).all()
