"""Beside a suspect stand the nearest sure images of both classes, by an independent reckoning."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from valgap.review.neighbours import SHOWN, with_neighbours
from valgap.review.suspects import Suspect
from valgap.types import ImagePair, ImageRows, LabelErrors

CLASSES = ("ant", "bee", "cat")


@dataclass
class Known:
    """What is measured on images: given numbers in place of files."""

    rows: ImageRows
    embeddings: Any
    label_errors: Any
    pairs: Any = ()


def known(n: int = 90, seed: int = 0) -> Known:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    features = (rng.normal(size=(n, 8)) + 5 * np.eye(8)[labels]).astype(np.float32)
    names = tuple(f"image {i}" for i in range(n))
    wrong = np.where(np.arange(n) % 7 == 3, 0.5, 0.01)
    errors = LabelErrors(wrong, labels, 0.1, 0.1, (0.0, 0.2), (0.0, 0.2))
    return Known(ImageRows(names, names, labels, np.arange(n) >= 60, CLASSES), features, errors)


def suspect(number: int, given: str, likely: str) -> Suspect:
    return Suspect(f"image {number}", Path("x"), "DAT104", "wrong_train_labels", "train", given, likely, "", 0.9)


def nearest(images: Known, own: int, of: int, never: set[int]) -> list[int]:
    """By the definition, one image after another."""
    mean = images.embeddings.mean(0)

    def cosine(i: int) -> float:
        a, b = images.embeddings[own] - mean, images.embeddings[i] - mean
        return float(a @ b / np.sqrt((a @ a) * (b @ b)))

    sure = [i for i, c in enumerate(images.rows.labels) if c == of and images.label_errors.wrong[i] < 0.1 and i not in never]
    return sorted(sure, key=cosine, reverse=True)[:SHOWN]


def test_the_nearest_sure_ones_of_both_classes() -> None:
    images = known()
    suspects = [suspect(0, "ant", "bee"), suspect(6, "ant", "cat"), suspect(5, "cat", ""), suspect(11, "", "nothing known")]
    suspects.append(suspect(999, "ant", "bee"))  # of no image that was measured
    images.pairs = (ImagePair(0, 9, "same_bytes", 1.0),)
    found = with_neighbours(suspects, images)
    never = {0, 6, 5, 11}
    assert list(found[0].near_given) == nearest(images, 0, 0, never | {9}), "a copy says nothing of the class"
    assert list(found[0].near_likely) == nearest(images, 0, 1, never)
    assert list(found[1].near_given) == nearest(images, 6, 0, never) and list(found[1].near_likely) == nearest(
        images, 6, 2, never
    )
    assert list(found[2].near_given) == nearest(images, 5, 2, never) and found[2].near_likely == ()
    assert found[3].near_given == found[3].near_likely == found[4].near_given == ()
    assert [s.path for s in found] == [s.path for s in suspects]


def test_where_hardly_any_is_sure_few_are_shown() -> None:
    images = known(12)
    images.label_errors.wrong[:] = 0.9
    images.label_errors.wrong[[3, 4]] = 0.0
    found = with_neighbours([suspect(0, "ant", "cat")], images)
    assert (found[0].near_given, found[0].near_likely) == ((3,), ())


@pytest.mark.parametrize("missing", ["embeddings", "label_errors"])
def test_without_measurements_there_are_none(missing: str) -> None:
    images = known()
    setattr(images, missing, None)
    given = [suspect(0, "ant", "bee")]
    assert with_neighbours(given, images) == given and with_neighbours(given, None) == given


def test_an_image_that_could_not_be_read_is_nobodys_neighbour() -> None:
    images = known()
    images.embeddings[[3, 9, 12]] = np.nan
    (found, unread) = with_neighbours([suspect(0, "ant", "bee"), suspect(9, "ant", "bee")], images)
    assert not {3, 9, 12} & set(found.near_given) and len(found.near_given) == SHOWN and unread.near_given == ()
