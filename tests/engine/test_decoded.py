"""Decoded images between epochs: the same pictures, read from the cache, which may be full, damaged or read-only."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from valgap.data import read_rgb
from valgap.engine import FeatureStore
from valgap.engine.decoded import reduced
from valgap.errors import DataError
from valgap.models.preprocessing import Preprocessing

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "clothing_mini"
P = Preprocessing(96, 0.875, "bicubic", (0.5,) * 3, (0.5,) * 3)


@pytest.fixture
def photographs(tmp_path: Path) -> list[Path]:
    """Smooth noise, 900 x 600, 600 x 900 and, smaller than what is shown, 50 x 40."""
    rng = np.random.default_rng(0)
    paths = []
    for number, size in enumerate([(900, 600), (600, 900), (50, 40)]):
        grain = Image.fromarray(rng.integers(0, 255, (20, 20, 3), np.uint8))
        paths.append(tmp_path / f"{number}.jpg")
        grain.resize(size, Image.Resampling.BICUBIC).save(paths[-1], quality=95)
    return paths


def test_evaluation_sees_the_same_image_within_its_tolerance(photographs: list[Path], tmp_path: Path) -> None:
    show = P.eval_transform()
    pictures = reduced(photographs, P, 1.0, FeatureStore(tmp_path / "cache"))
    for index, path in enumerate(photographs):
        grey = 255 * 0.5 * (show(Image.fromarray(pictures[index])) - show(read_rgb(path))).abs()
        assert grey.mean() < 1.0
        assert grey.max() <= 16


def test_real_photographs_as_the_evaluation_sees_them(tmp_path: Path) -> None:
    if not DATA.is_dir():
        pytest.skip("the real images are not here")
    paths = sorted((DATA / "val" / "hat").iterdir())[:6]
    pictures, show = reduced(paths, P, 1.0, FeatureStore(tmp_path)), P.eval_transform()
    shown = torch.stack([show(Image.fromarray(pictures[i])) - show(read_rgb(p)) for i, p in enumerate(paths)])
    assert (255 * 0.5 * shown.abs()).mean() < 1.5


def test_a_crop_keeps_the_size_that_the_network_sees(photographs: list[Path], tmp_path: Path) -> None:
    pictures = reduced(photographs, P, 0.25, FeatureStore(tmp_path / "cache"))
    assert [p.shape for p in (pictures[0], pictures[1], pictures[2])] == [(192, 288, 3), (288, 192, 3), (40, 50, 3)]


def test_each_image_is_decoded_once(photographs: list[Path], tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "cache")
    first = [np.array(p) for p in map(reduced(photographs, P, 1.0, store).__getitem__, range(3))]
    again = reduced(photographs, P, 1.0, store)
    again.decode = no_decoding
    assert all(np.array_equal(again[i], first[i]) for i in range(3))
    (usage,) = store.usage()
    assert usage.rows == 3
    assert "decoded" in usage.about
    other = reduced(photographs, P.at(64), 1.0, store)
    other.decode = no_decoding
    with pytest.raises(AssertionError):
        other[0]


def no_decoding(path: Path) -> np.ndarray:
    raise AssertionError(path)


def test_a_changed_file_and_a_damaged_copy_are_decoded_again(photographs: list[Path], tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "cache")
    pictures = reduced(photographs, P, 1.0, store)
    first = np.array(pictures[0])
    pictures.files[0].write_bytes(pictures.files[0].read_bytes()[:1000])
    assert np.array_equal(pictures[0], first)
    assert np.array_equal(np.load(pictures.files[0]), first)
    photographs[0].write_bytes(photographs[1].read_bytes())
    assert reduced(photographs, P, 1.0, store)[0].shape == (165, 110, 3)


def test_no_room_and_no_disk_only_cost_time(photographs: list[Path], tmp_path: Path) -> None:
    small = reduced(photographs, P, 1.0, FeatureStore(tmp_path / "small", limit_bytes=1000))
    assert small[0].shape == (110, 165, 3)
    assert not list((tmp_path / "small").rglob("*.npy"))
    (tmp_path / "file").write_text("no folder")
    assert reduced(photographs, P, 1.0, FeatureStore(tmp_path / "file"))[0].shape == (110, 165, 3)


def test_a_broken_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match="no readable image"):
        reduced([tmp_path / "a.jpg"], P, 1.0, FeatureStore(tmp_path / "cache"))[0]


def test_reading_processes_get_it(photographs: list[Path], tmp_path: Path) -> None:
    pictures = pickle.loads(pickle.dumps(reduced(photographs, P, 1.0, FeatureStore(tmp_path / "cache"))))
    assert pictures[0].shape == (110, 165, 3)
