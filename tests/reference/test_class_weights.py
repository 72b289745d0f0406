"""Class weights that are made of the class counts and given to other classes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import TRAIN, healthy, samples
from valgap.reference import losses
from valgap.types import Compared, LossStats, RunRecord

SHARES = np.array([0.5, 0.25, 0.15, 0.1])
UNKNOWN = Compared("unknown", "")


def weighted(weights: list[float], even: bool = False) -> RunRecord:
    """The run, its classes filled 5 to 1, or evenly, with these weights of the loss."""
    run = healthy().run
    ids = np.arange(TRAIN)
    target = np.sort(np.random.default_rng(0).choice(4, TRAIN, p=None if even else SHARES)).astype(np.int32)
    passes = []
    for one in run.passes:
        if one.phase == "train":
            assert one.loss is not None
            table = replace(samples(ids, 0.7), target=target)
            loss: LossStats = replace(one.loss, weights=tuple(weights), class_weights=True)
            passes.append(replace(one, samples=table, loss=loss))
        else:
            passes.append(one)
    return replace(run, passes=tuple(passes))


@pytest.mark.parametrize(
    ("powers", "told"),
    [
        ([0, 1, 2, 3], ""),  # each class its own
        ([3, 2, 1, 0], "another order"),
        ([1, 0, 3, 2], ""),  # neighbours in size: they still fall with the counts
        ([2, 3, 0, 1], "another order"),
    ],
)
def test_weights_in_the_order_of_frequency(powers: list[int], told: str) -> None:
    counts = np.bincount(weighted([1.0] * 4).of_phase("train")[0].samples.target)
    run = weighted((1 / counts[powers]).tolist())
    found = losses.compare(run, UNKNOWN)
    assert (found.verdict == "at fault" and "class weights" in found.summary) == bool(told)
    assert told in found.summary


def test_weights_that_rise_with_the_counts_and_weights_of_even_classes() -> None:
    counts = np.bincount(weighted([1.0] * 4).of_phase("train")[0].samples.target)
    assert "rise with" in losses.compare(weighted(counts.astype(float).tolist()), UNKNOWN).summary
    assert "class weights" not in losses.compare(weighted([4.0, 3.0, 2.0, 1.0], even=True), UNKNOWN).summary


@pytest.mark.parametrize("seen", [True, False])
def test_weights_given_to_others_cost_what_slighted_classes_lack(seen: bool) -> None:
    """Classes 2 and 3 are small and get the weights of large ones; in validation half of what they have is not recognised."""
    counts = np.bincount(weighted([1.0] * 4).of_phase("train")[0].samples.target)
    run = weighted((1 / counts[[3, 2, 1, 0]]).tolist())
    passes = []
    for one in run.passes:
        if one.phase == "validation":
            n = len(one.samples)
            target = (np.arange(n) % 4).astype(np.int32)
            wrong = (target >= 2) & (np.arange(n) % 8 >= 4)
            table = replace(one.samples, target=target, prediction=np.where(wrong, 0, target).astype(np.int32))
            one = replace(one, samples=table if seen else replace(table, target=np.full(n, -1, np.int32)))
        passes.append(one)
    found = losses.compare(replace(run, passes=tuple(passes)), UNKNOWN)
    assert found.verdict == "at fault"
    if not seen:
        assert found.points is None
        return
    assert found.points is not None
    assert (
        found.points.value == pytest.approx(0.9 * 50 * 0.5, rel=0.1)
        and 0 < found.points.low < found.points.value < found.points.high
    )
