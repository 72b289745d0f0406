"""DAT113."""

import numpy as np
import pytest

from tests.checks.cases import found, healthy, quiet
from tests.checks.pictures import case, pictures, relabelled, two_classes
from valgap.checks.data.misaligned_labels import CHECK
from valgap.types import Clear, NotApplicable


def shuffled(images_of=pictures, by: int = 0):  # type: ignore[no-untyped-def]
    images = images_of(300, 60)
    rng = np.random.default_rng(3)
    order = rng.permutation(300)
    labels = images.rows.labels.copy()
    labels[:300] = labels[order]
    images.embeddings[:300] = images.embeddings[order]
    if by == 0:
        labels[:300] = rng.permutation(labels[:300])
    else:
        labels[:300] = np.roll(labels[:300], by)
    return relabelled(images, labels)


@pytest.mark.parametrize("by", [1, -2])
def test_labels_moved_by_some_places(by: int) -> None:
    finding = found(CHECK.detect(case(shuffled(by=by))))
    assert finding.confidence > 0.9
    assert f"moved by {by} places" in finding.summary


def test_shuffled_labels() -> None:
    assert found(CHECK.detect(case(shuffled()))).confidence == pytest.approx(0.7)


def test_sound_near_miss_and_missing() -> None:
    assert isinstance(CHECK.detect(case(pictures())), Clear)
    images = pictures(300, 60)
    rng = np.random.default_rng(0)
    noisy = np.where(rng.random(360) < 0.5, rng.integers(0, 4, 360), images.rows.labels)
    assert quiet(CHECK.detect(case(relabelled(images, noisy))))  # half of the labels wrong: DAT104
    assert isinstance(CHECK.detect(healthy()), NotApplicable)
    assert isinstance(CHECK.detect(case(pictures(40, 10))), NotApplicable)


def test_labels_that_teach_validation_mean_something() -> None:
    # two classes, two fifths of the few labels wrong: the probe hardly meets held-out training labels, and validation it does
    images = two_classes(wrong=0.4)
    held = images.held_out
    assert held is not None and held.val_accuracy > 0.7
    assert quiet(CHECK.detect(case(images)))
