"""Where the effect of a cause leads, from the validations of shortened arms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import healthy
from tests.experiments.test_joint import table
from valgap.experiments.arm import ArmSpec
from valgap.experiments.arm_result import ArmResult
from valgap.experiments.course import course
from valgap.experiments.verdicts import compared

IMAGES = 100
SPEC = ArmSpec("train.py", None, ["train.py"], "here", 0, 4, 1.0, [0], [1])


def arm(*right: float) -> ArmResult:
    """An arm that answers these shares of the same images rightly, epoch by epoch."""
    run = healthy().run
    train, val = run.of_phase("train")[0], run.of_phase("validation")[0]
    passes = []
    for epoch, share in enumerate(right):
        answers = table([0] * IMAGES, [int(i >= round(share * IMAGES)) for i in range(IMAGES)], [0.0] * IMAGES, [0.0] * IMAGES)
        passes += [replace(train, index=2 * epoch), replace(val, index=2 * epoch + 1, samples=answers)]
    record = replace(run, passes=tuple(passes))
    return ArmResult(SPEC, record, passes[-1].samples, (1,), 1.0, None)


@pytest.mark.parametrize(
    ("treated", "told"),
    [
        ((0.5, 0.53, 0.6, 0.62), "still grows"),
        ((0.5, 0.6, 0.6, 0.61), "is steady"),
        ((0.5, 0.7, 0.6, 0.55), "shrinks"),
        ((0.5, 0.47, 0.4, 0.42), "still grows"),  # a cause of too good a result
        ((0.5, 0.47, 0.5, 0.55), "shrinks"),  # it changes its sign
    ],
)
def test_the_course_of_an_effect(treated: tuple[float, ...], told: str) -> None:
    found = course("cause", [arm(0.5, 0.5, 0.5, 0.5)] * 2, [arm(*treated)] * 2, 4, 10)
    points = [round(100 * (t - 0.5), 1) for t in treated]
    assert found.startswith(f"cause: {points[1]:+.1f} points after 2, {points[3]:+.1f} after 4 of 10 epochs") and told in found


def test_whole_arms_and_a_single_epoch_have_no_course() -> None:
    control, treated = [arm(0.5, 0.5)], [arm(0.6, 0.7)]
    assert course("cause", control, treated, 2, 2) == "" == course("cause", control, treated, 1, 4)
    assert course("cause", control, [replace(treated[0], record=None)], 2, 4) == ""


def test_images_of_other_names_are_paired_by_their_place_where_labels_have_one_order() -> None:
    def named(letter: str, *right: float) -> ArmResult:
        one = arm(*right)
        answers = table([i % 2 for i in range(IMAGES)], [int(i >= 60) for i in range(IMAGES)], [0.0] * IMAGES, [0.0] * IMAGES)
        answers = replace(answers, sample=np.arange(IMAGES, dtype=np.int32))
        return replace(one, samples=answers, names=tuple(f"{letter}{i}" for i in range(IMAGES)))

    control, treated = named("a", 0.5), named("b", 0.5)
    found = compared([control], [treated])
    assert found is not None and found.right[0].shape == (1, IMAGES) and np.array_equal(*found.right)
    assert treated.samples is not None
    other = replace(treated, samples=replace(treated.samples, target=treated.samples.target[::-1].copy()))
    assert compared([control], [other]) is None
