"""Sets of few photographs in many copies each: the copies are found, and tests take them as one image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from tests.checks.cases import healthy
from valgap.diagnosis import images_of_path
from valgap.features.draws import by_pictures
from valgap.features.measurements import Measurements
from valgap.features.pairs import classes_differ, full_of_copies, pictures_of
from valgap.features.probes import folds_of, together
from valgap.types import Closing, ImagePair

PHOTOS, SIDE = 24, 64


def photograph(seed: int) -> Image.Image:
    """Soft stains of its own."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(1))


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Measurements:
    """Two classes of twelve photographs, each in four copies; the copies of a photograph lie on one side."""
    folder = tmp_path_factory.mktemp("copied")
    for number in range(PHOTOS):
        place = folder / ("val" if number % 4 == 3 else "train") / ("ants" if number < PHOTOS // 2 else "bees")
        place.mkdir(parents=True, exist_ok=True)
        whole = photograph(number)
        light = ImageEnhance.Brightness(whole)
        kinds = {"as_it_is": whole, "mirrored": ImageOps.mirror(whole), "dark": light.enhance(0.8), "light": light.enhance(1.2)}
        for kind, image in kinds.items():
            image.save(place / f"{number:02}_{kind}.png")
    found = images_of_path(folder)
    assert isinstance(found, Measurements)
    return found


def test_copies_of_few_photographs_are_told_although_random_pairs_hold_some(copied: Measurements) -> None:
    of_photo = [Path(p).name[:2] for p in copied.rows.paths]
    pairs = copied.pairs
    assert pairs is not None and "near_pairs" not in copied.missing and len(pairs) >= 2 * PHOTOS
    assert all(of_photo[p.first] == of_photo[p.second] for p in pairs)


def test_images_of_one_photograph_are_one_draw(copied: Measurements) -> None:
    shift = copied.shift
    assert not isinstance(shift, str)
    assert shift is None or shift.p_value > 0.01  # six photographs of 24 are no other kind, in however many copies
    held = copied.held_out
    assert held is not None
    of_photo = np.array([Path(p).name[:2] for p in copied.rows.paths])
    for photo in np.unique(of_photo):
        assert len(set(held.folds[of_photo == photo].tolist())) == 1


def test_errors_are_those_of_so_many_pictures(copied: Measurements) -> None:
    numbers = {"probe_final": 0.5, "probe_start_se": 0.03, "probe_n": 24.0, "probe_start_n": 24.0, "calibration_n": 24.0}
    record = healthy(closing=Closing(numbers=numbers)).run
    told = by_pictures(record, copied).closing
    assert told is not None and told.numbers["probe_start_se"] == pytest.approx(0.06)
    assert [told.numbers[k] for k in ("probe_n", "probe_start_n", "calibration_n", "probe_final")] == [6, 6, 24, 0.5]
    assert by_pictures(record, None) is record


def test_folds_are_as_before_where_every_image_shows_its_own() -> None:
    labels = np.random.default_rng(0).integers(0, 3, 50)
    assert np.array_equal(together(np.random.default_rng(1).permutation(50), labels), folds_of(labels))


def test_pictures_are_joined_along_chains() -> None:
    pairs = [ImagePair(0, 3, "near", 0.95), ImagePair(3, 4, "same_bytes", 1.0)]
    numbers = pictures_of(pairs, 6)
    assert numbers[0] == numbers[3] == numbers[4] and len(set(numbers.tolist())) == 4


def test_a_class_whose_images_are_alike_by_nature_is_none_of_copies(copied: Measurements) -> None:
    thumbs, labels = copied._seen[2], copied.rows.labels
    every = np.arange(len(labels))
    pairs = [p for p in copied.pairs or () if p.kind == "near"]
    assert classes_differ(thumbs, labels, every) and full_of_copies(pairs, labels, every)
    one_place = [ImagePair(i, i + 1, "near", 0.95) for i in range(len(labels) // 2 - 1)]  # all of a class hang together
    assert not full_of_copies(one_place, labels, every)
    assert not full_of_copies(pairs[:5], labels, every)  # a few alike pairs are no set of copies
    assert not classes_differ(thumbs, np.full(len(labels), -1), every)  # nothing says what is different
