"""PRE204."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import NORMALIZE, TRAIN, VAL, dataset, found, healthy, rescored, samples, without
from valgap.checks.preprocessing.augmented_validation import CHECK
from valgap.types import Case, Clear, NotApplicable, TransformStep

IDS = np.arange(TRAIN, TRAIN + VAL)


def changing(share: float) -> Case:
    """A share of the validation images reaches the model changed in the last epoch."""
    run = healthy().run
    last = run.passes[-1]
    marks = last.samples.fingerprint.copy()
    marks[: round(share * VAL)] += 1.0
    return Case(replace(run, passes=(*run.passes[:-1], replace(last, samples=replace(last.samples, fingerprint=marks)))))


@pytest.mark.parametrize("share", [0.3, 0.5, 1.0])
def test_share_of_changed_images(share: float) -> None:
    finding = found(CHECK.detect(changing(share)))
    assert next(e.value for e in finding.evidence if "changed" in e.name) == pytest.approx(share)


def test_gain_of_a_fixed_transform() -> None:
    case = rescored(changing(1.0), val_eval=samples(IDS, 0.5), val_fixed=samples(IDS, 0.7))
    assert found(CHECK.detect(case)).severity_points == pytest.approx(20)


def test_one_pass_only_with_a_random_step() -> None:
    run = healthy().run
    step = TransformStep("RandomResizedCrop", "", True)
    datasets = {0: run.datasets[0], 1: dataset(1, IDS, transform=(step, NORMALIZE))}
    assert found(CHECK.detect(Case(replace(run, passes=run.passes[:2], datasets=datasets))))


def test_sound_and_random_training_are_silent() -> None:
    assert isinstance(CHECK.detect(healthy()), Clear)
    run = healthy().run
    step = TransformStep("RandomHorizontalFlip", "", True)
    datasets = {0: dataset(0, np.arange(TRAIN), transform=(step,)), 1: run.datasets[1]}
    assert isinstance(CHECK.detect(Case(replace(run, datasets=datasets))), Clear)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "validation")), NotApplicable)
