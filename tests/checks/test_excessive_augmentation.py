"""PRE207."""

from dataclasses import replace

import pytest

from tests.checks.cases import NORMALIZE, dataset, found, healthy, measured, without
from valgap.checks.preprocessing.excessive_augmentation import CHECK
from valgap.types import Case, Clear, NotApplicable, TransformStep

CROP = TransformStep("RandomResizedCrop", "RandomResizedCrop(...)", True)


def augmented(plain: float, left: float, error: float = 0.03, random: bool = True) -> Case:
    """Probes on plain and on augmented training images (four classes)."""
    case = healthy()
    steps = (CROP, NORMALIZE) if random else (NORMALIZE,)
    sets = {**case.run.datasets, 0: dataset(0, range(200), transform=steps)}
    case = Case(replace(case.run, datasets=sets))
    numbers = {"probe_plain": plain, "probe_augmented": left, "probe_augmented_se": error, "probe_augmented_n": 200.0}
    return measured(case, **numbers)


@pytest.mark.parametrize("left", [0.25, 0.3, 0.4])
def test_little_is_left(left: float) -> None:
    finding = found(CHECK.detect(augmented(0.8, left)))
    assert finding.evidence[1].value == pytest.approx((left - 0.25) / 0.55)


def test_sound_augmentation_is_silent() -> None:
    assert isinstance(CHECK.detect(augmented(0.8, 0.6)), Clear)
    assert isinstance(CHECK.detect(augmented(0.8, 0.26, random=False)), Clear)


def test_features_that_tell_nothing() -> None:
    assert isinstance(CHECK.detect(augmented(0.28, 0.25)), NotApplicable)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "train")), NotApplicable)
    case = augmented(0.8, 0.6)
    assert isinstance(CHECK.detect(Case(replace(case.run, closing=None))), NotApplicable)


def test_little_left_of_few_images_is_chance() -> None:
    few = measured(augmented(0.8, 0.4, error=0.1), probe_augmented_n=40.0)
    assert isinstance(CHECK.detect(few), Clear)
    found(CHECK.detect(measured(few, probe_augmented_n=200.0, probe_augmented_se=0.04)))
