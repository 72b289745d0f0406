"""TRN404."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import TRAIN, VAL, found, healthy, quiet, samples, train_pass, val_pass, without
from valgap.checks.training.overtraining import CHECK
from valgap.types import Case, Clear, NotApplicable


def course(accuracies: list[float], train: list[float] | None = None) -> Case:
    """A run whose validation accuracies are these, over the same images; nested, so that a fall loses images."""
    train = train or np.linspace(0.6, 1.0, len(accuracies)).tolist()
    passes = []
    for epoch, (val, own) in enumerate(zip(accuracies, train, strict=True)):
        table = samples(np.arange(TRAIN), own, seed=3, shuffle=True)
        passes.append(train_pass(2 * epoch, epoch, np.arange(TRAIN), samples=table))
        passes.append(
            val_pass(2 * epoch + 1, epoch + 1, np.arange(TRAIN, TRAIN + 2 * VAL), samples=samples(range(400, 600), val))
        )
    return Case(replace(healthy().run, passes=tuple(passes)))


@pytest.mark.parametrize("drop", [0.06, 0.1, 0.2])
def test_points_are_the_fall(drop: float) -> None:
    finding = found(CHECK.detect(course([0.7, 0.8, 0.8 - drop, 0.8 - drop, 0.8 - drop])))
    assert finding.severity_points == pytest.approx(100 * drop)
    fall, loss, train, late = finding.evidence
    assert (fall.value, fall.reference) == (pytest.approx(100 * drop), 0.0)
    assert loss.value > 0 and loss.reference == 0.0
    assert (train.value, train.reference, late.value) == pytest.approx((1.0, 0.7, 0.3))  # 70 % known by the best epoch, then all
    assert "epoch 2" in finding.summary


def test_rising_curves_and_small_dips_are_silent() -> None:
    assert isinstance(CHECK.detect(course([0.6, 0.7, 0.75, 0.78])), Clear)
    assert isinstance(CHECK.detect(course([0.7, 0.8, 0.79, 0.79])), Clear)


def test_too_few_epochs_to_see_how_much_the_curve_jumps_are_a_hint() -> None:
    assert quiet(CHECK.detect(course([0.45, 0.6, 0.54, 0.44])))


def test_a_low_last_epoch_of_a_jumping_curve_is_no_overtraining() -> None:
    assert quiet(CHECK.detect(course([0.8, 0.6, 0.79, 0.8, 0.78, 0.6], [0.7, 0.8, 0.7, 0.8, 0.7, 0.71])))


def test_a_long_jumping_curve_is_judged_by_its_averages() -> None:
    jumping = [0.3, 0.5, 0.6, 0.58, 0.55, 0.62, 0.56, 0.6, 0.71, 0.56, 0.57]
    assert quiet(CHECK.detect(course(jumping)))
    found(CHECK.detect(course([0.3, 0.5, 0.7, 0.72, 0.71, 0.66, 0.62, 0.6, 0.58, 0.56, 0.57])))


def test_training_that_gets_worse_as_well_is_another_cause() -> None:
    assert isinstance(CHECK.detect(course([0.7, 0.8, 0.6, 0.6], [0.6, 0.9, 0.6, 0.5])), Clear)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "validation")), NotApplicable)
    assert isinstance(CHECK.detect(course([0.7, 0.8])), NotApplicable)
