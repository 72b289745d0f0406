"""Folders, odd files, splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from valgap.data import load_folder, read_rgb
from valgap.data.folder import near_duplicate_groups
from valgap.errors import DataError


def picture(seed: int, side: int = 48) -> Image.Image:
    """A smooth colourful image, another one for each seed."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


def fill(folder: Path, count: int, start: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        picture(start + i).save(folder / f"{i}.png")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for split, start in (("train", 0), ("val", 100)):
        fill(tmp_path / split / "cat", 4, start)
        fill(tmp_path / split / "dog", 3, start + 50)
    return tmp_path


def test_train_and_val(photos: Path) -> None:
    table = load_folder(photos)
    assert table.classes == ("cat", "dog")
    assert [len(table.part(val)[0]) for val in (False, True)] == [7, 7]
    assert [p.parent.name for p in table.paths] == [table.classes[i] for i in table.labels]
    assert table.report.lines() == []


@pytest.mark.parametrize("name", ["valid", "validation", "test"])
def test_other_names_and_any_depth(name: str, photos: Path) -> None:
    (photos / "val").rename(photos / name)
    fill(photos / name / "cat" / "deep" / "er", 1, 900)
    assert len(load_folder(photos).part(val=True)[0]) == 8


def test_single_folder_is_split_by_class_and_seed(tmp_path: Path) -> None:
    fill(tmp_path / "a", 20)
    fill(tmp_path / "b", 10, 100)
    one, same, other = (load_folder(tmp_path, seed) for seed in (0, 0, 1))
    assert one.is_val.tolist() == same.is_val.tolist()
    assert {p for p, v in zip(one.paths, one.is_val, strict=True) if v} != {
        p for p, v in zip(other.paths, other.is_val, strict=True) if v
    }
    assert np.bincount(one.labels[one.is_val]).tolist() == [4, 2]


def test_near_duplicates_stay_on_one_side(tmp_path: Path) -> None:
    fill(tmp_path / "a", 12)
    fill(tmp_path / "b", 12, 100)
    for i in range(12):
        picture(i).save(tmp_path / "a" / f"{i}_again.jpg", quality=80)
    table = load_folder(tmp_path)
    side = {p.name: bool(v) for p, v in zip(table.paths, table.is_val, strict=True) if p.parent.name == "a"}
    twins = [(f"{i}.png", f"{i}_again.jpg") for i in range(12)]
    assert all(side[a] == side[b] for a, b in twins)
    assert len(near_duplicate_groups(sorted((tmp_path / "a").iterdir()))) == 12


def test_odd_files_are_counted_and_listed(photos: Path) -> None:
    cat = photos / "train" / "cat"
    image = picture(7)
    image.convert("P").save(cat / "palette.png")
    image.convert("CMYK").save(cat / "cmyk.jpg")
    image.convert("RGBA").save(cat / "alpha.png")
    Image.fromarray((np.arange(48 * 48).reshape(48, 48) * 28).astype(np.uint16)).save(cat / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(cat / "turned.jpg", exif=exif)
    image.save(cat / "liar.bmp", format="JPEG")
    image.save(cat / "cut.jpg")
    (cat / "cut.jpg").write_bytes((cat / "cut.jpg").read_bytes()[:300])
    (cat / "empty.jpg").write_bytes(b"")
    (cat / "page.jpg").write_text("<html></html>")
    report = load_folder(photos).report
    assert {Path(p).name for p in report.unreadable} == {"cut.jpg", "empty.jpg", "page.jpg"}
    assert {kind: [Path(p).name for p in paths] for kind, paths in report.odd.items()} == {
        "palette": ["palette.png"],
        "CMYK": ["cmyk.jpg"],
        "alpha": ["alpha.png"],
        "16-bit": ["deep.png"],
        "EXIF-rotated": ["turned.jpg"],
        "wrongly named": ["liar.bmp"],
    }
    assert "3 unreadable files left out" in report.lines()[0]


def test_conversions_keep_the_picture(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 32768, 65535]], np.uint16)).save(tmp_path / "deep.png")
    assert np.asarray(read_rgb(tmp_path / "deep.png"))[0, :, 0].tolist() == [0, 127, 255]
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert np.asarray(read_rgb(tmp_path / "clear.png"))[0, 0].tolist() == [255, 255, 255]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_rgb(tmp_path / "turned.jpg").size == (4, 8)


def test_errors_say_what_to_do(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    with pytest.raises(DataError, match="is no folder"):
        load_folder(other / "nothing")
    with pytest.raises(DataError, match="it is empty"):
        load_folder(other)
    picture(0).save(other / "a.png")
    with pytest.raises(DataError, match="no class folder"):
        load_folder(other)
    fill(other / "cat", 3)
    with pytest.raises(DataError, match="one class only"):
        load_folder(other)
    fill(photos / "val" / "fox", 1)
    with pytest.raises(DataError, match="fox"):
        load_folder(photos)
    (photos / "val").rename(photos / "later")
    with pytest.raises(DataError, match="none of val/"):
        load_folder(photos)
