"""Kept pixels: equal to decoded ones to the last bit, of the very file, and never anybody else's to change."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from valgap.seams.acting.decoded import BYTES_A_PIXEL, DecodedFiles

SIDE = 40


@pytest.fixture
def kept() -> Iterator[DecodedFiles]:
    own = DecodedFiles()
    before = ImageFile.ImageFile.load, Image._getdecoder  # type: ignore[attr-defined]
    own.attach()
    yield own
    own.detach()
    assert (ImageFile.ImageFile.load, Image._getdecoder) == before  # type: ignore[attr-defined]


def photograph(file: Path, seed: int = 0, mode: str = "RGB") -> Path:
    picture = Image.fromarray(np.random.default_rng(seed).integers(0, 255, (SIDE, SIDE + 8, 3), dtype=np.uint8))
    picture.convert(mode).save(file)
    return file


def pixels(file: Path, draft: bool = False) -> np.ndarray:
    with Image.open(file) as picture:
        if draft:
            picture.draft("L", (SIDE // 2, SIDE // 2))
        return np.array(picture)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("draft", [False, True])
def test_copies_are_what_decoding_gives(mode: str, draft: bool, tmp_path: Path, kept: DecodedFiles) -> None:
    file = photograph(tmp_path / "a.jpg", mode=mode)
    kept.detach()
    plain = pixels(file, draft)
    kept.attach()
    seen = [pixels(file, draft) for _ in range(3)]
    assert kept.copied == 2
    assert all(np.array_equal(plain, s) for s in seen)


def test_a_whole_picture_and_a_draft_of_it_are_two(tmp_path: Path, kept: DecodedFiles) -> None:
    file = photograph(tmp_path / "a.jpg")
    assert pixels(file).shape != pixels(file, draft=True).shape and kept.copied == 0


def test_what_a_program_paints_stays_its_own(tmp_path: Path, kept: DecodedFiles) -> None:
    file = photograph(tmp_path / "a.jpg")
    plain = pixels(file)
    for _ in range(2):
        with Image.open(file) as picture:
            picture.load()
            picture.paste((1, 2, 3), (0, 0, SIDE, SIDE))
    assert np.array_equal(pixels(file), plain)


def test_another_file_under_the_same_name_is_decoded(tmp_path: Path, kept: DecodedFiles) -> None:
    file = photograph(tmp_path / "a.jpg")
    before = pixels(file)
    times = file.stat()
    photograph(tmp_path / "b.jpg", seed=1).replace(file)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not np.array_equal(pixels(file), before) and kept.copied == 0


def test_what_cannot_be_decoded_fails_each_time(tmp_path: Path, kept: DecodedFiles) -> None:
    file = photograph(tmp_path / "a.jpg")
    file.write_bytes(file.read_bytes()[:700])
    for _ in range(2):
        with pytest.raises(OSError, match="truncated"):
            pixels(file)
    assert kept.copied == 0


def test_other_formats_and_memory_are_left_alone(tmp_path: Path, kept: DecodedFiles) -> None:
    data = photograph(tmp_path / "a.jpg").read_bytes()
    photograph(tmp_path / "a.png")
    for _ in range(2):
        pixels(tmp_path / "a.png")
        Image.open(io.BytesIO(data)).load()
    assert kept.copied == 0


def test_there_is_a_bound(tmp_path: Path) -> None:
    files = [photograph(tmp_path / f"{k}.jpg", seed=k) for k in range(3)]
    kept = DecodedFiles(most_bytes=2 * BYTES_A_PIXEL * SIDE * (SIDE + 8))
    kept.attach()
    for file in (*files, *files):
        pixels(file)
    kept.detach()
    assert kept.copied == 2 and kept.room == 0


@pytest.mark.parametrize("by_name", [True, False])
def test_the_program_that_waits_decodes_what_an_arm_has_decoded(by_name: bool, tmp_path: Path) -> None:
    file = photograph(tmp_path / "a.jpg")
    (tmp_path / "lists").mkdir()
    arm, waits = DecodedFiles(tmp_path / "lists"), DecodedFiles(tmp_path / "lists")
    arm.attach()
    if by_name:
        pixels(file)
    else:  # as torchvision's image folders do
        with file.open("rb") as opened:
            Image.open(opened).convert("RGB")
    arm.tell()
    arm.detach()
    waits.attach()
    assert not waits.decode_like_arms(0.0) or not waits.decode_like_arms(60.0)
    waits.decode_like_arms(60.0)
    waits.forked()
    pixels(file)
    waits.detach()
    assert waits.copied == 1


def test_two_programs_that_wait_read_the_same_lists(tmp_path: Path) -> None:
    files = [photograph(tmp_path / f"{k}.jpg", seed=k) for k in range(3)]
    (tmp_path / "lists").mkdir()
    arm = DecodedFiles(tmp_path / "lists")
    (tmp_path / "lists" / "decoded.gone").symlink_to(tmp_path / "nothing")  # one that goes away between two looks
    arm.attach()
    waiting = [DecodedFiles(tmp_path / "lists") for _ in range(2)]
    for file in files:
        pixels(file)
        arm.tell()
        for one in waiting:
            one.attach()
            while one.decode_like_arms(60.0):
                pass
            one.detach()
    arm.detach()
    for one in waiting:
        one.forked()
        one.attach()
        for file in files:
            pixels(file)
        one.detach()
    assert [one.copied for one in waiting] == [3, 3]
