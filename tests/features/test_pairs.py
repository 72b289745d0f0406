"""Near duplicates by aligned thumbnails, and shift against permuted splits."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy.stats import rankdata

from tests.features.pictures import scene
from valgap.features.alignment import Aligner, _grid, _sample, views
from valgap.features.looking import look_at
from valgap.features.pairs import neighbours
from valgap.features.shift import areas_under_curve, class_shares, permuted_sides, ranks_between, upper_p

CHANGES = {
    "same": lambda i: i,
    "mirrored": ImageOps.mirror,
    "cropped": lambda i: i.crop((20, 5, 220, 210)),
    "turned": lambda i: i.rotate(5, resample=Image.Resampling.BICUBIC),
    "darker": lambda i: ImageEnhance.Brightness(i).enhance(0.7),
    "framed": lambda i: ImageOps.expand(i, 20, "white"),
}


def thumb(image: Image.Image) -> np.ndarray:
    from io import BytesIO

    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=85)
    found = look_at(buffer.getvalue()).thumb
    assert found is not None
    return found


@pytest.mark.parametrize("name", CHANGES)
def test_an_altered_copy_agrees_and_another_picture_does_not(name: str) -> None:
    original, other = scene(1), scene(2)
    aligner = Aligner(np.stack([thumb(original), thumb(CHANGES[name](original)), thumb(other)]))
    first, second = np.array([0, 0]), np.array([1, 2])
    _, maps, flip = aligner.coarse(first, second)
    picture, detail = aligner.refined(first, second, maps, flip)
    assert picture[0] > 0.9
    assert detail[0] > 0.6
    assert detail[1] < 0.3


def test_one_map_for_all_is_each_image_under_that_map() -> None:
    images = np.random.default_rng(0).normal(size=(5, 32, 32)).astype(np.float32)
    for view in views():
        together, apart = (_sample(images, _grid(16), maps) for maps in (view[None], np.tile(view, (5, 1, 1))))
        assert np.array_equal(together[0], apart[0])
        assert (together[1] == apart[1]).all()


def test_an_image_of_many_pairs_is_seen_as_in_one() -> None:
    aligner = Aligner(np.stack([thumb(scene(n)) for n in range(3)]))
    once, often = aligner._seen(np.array([2])), aligner._seen(np.array([2, 0, 2, 1]))
    assert np.array_equal(often[[0, 2]], np.concatenate([once, once]))
    assert not np.array_equal(often[0], often[1])


def test_neighbours_are_the_nearest_and_each_pair_comes_once() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 30)).astype(np.float32)
    features[1] = features[0] + 0.01 * rng.normal(size=30)
    first, second, cosine = neighbours(features)
    pairs = list(zip(first.tolist(), second.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    assert all(a < b for a, b in pairs)
    assert pairs[int(cosine.argmax())] == (0, 1)


def test_areas_and_permutations() -> None:
    rng = np.random.default_rng(0)
    side = np.array([0.0, 0, 0, 1, 1])
    scores = np.array([[0.1], [0.4], [0.35], [0.8], [0.4]])
    assert areas_under_curve(scores, side[:, None])[0] == pytest.approx((3 + 2.5) / 6)
    groups = np.array([0, 0, 1, 1, 1])
    sides = permuted_sides(side, groups, rng)
    assert (sides[:2].sum(0) == 0).all()  # the first class has no validation image in any permutation
    assert (sides.sum(0) == 2).all()
    assert upper_p(np.array([3.0, 1, 2, 3])) == pytest.approx(0.5)


def test_ranks_are_scipys() -> None:
    values = np.random.default_rng(0).integers(0, 9, (30, 4)).astype(float)
    low, high = ranks_between(values)
    assert np.array_equal(low, rankdata(values, "min", axis=0))
    assert np.array_equal((low + high) / 2, rankdata(values, axis=0))
    assert np.array_equal(ranks_between(values[:, 1])[1], rankdata(values[:, 1], "max"))


def test_class_shares_find_a_thinned_class() -> None:
    rng = np.random.default_rng(0)
    train, val = np.repeat([0, 1, 2], 100), np.repeat([0, 1, 2], [60, 60, 5])
    p_value, shares = class_shares(train, val, 3, rng)
    assert p_value < 0.001
    assert shares.sum(1).tolist() == pytest.approx([1, 1])
    assert class_shares(train, np.repeat([0, 1, 2], 40), 3, rng)[0] > 0.5
