"""Mixed images and the targets that are asked for them: at fault in the loss or in the pairing, or sound."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.checks.cases import healthy
from valgap.reference import mixing
from valgap.types import Intervention, MixStats, RunRecord


def mixed(**numbers: float) -> RunRecord:
    """The run, its first training pass with mixed images."""
    run = healthy().run
    stats = MixStats(**{"images": 60.0, "neither": 0.0, "uneven": 40.0, "reversed": 0.0, "large": 50.0, "single": 0.0, **numbers})
    first = run.of_phase("train")[0]
    return replace(run, passes=tuple(replace(p, mix=stats) if p is first else p for p in run.passes))


@pytest.mark.parametrize(
    ("numbers", "loss", "pair"),
    [
        ({}, False, False),
        ({"reversed": 38.0}, True, False),
        ({"neither": 15.0}, True, False),
        ({"single": 45.0}, False, True),
        ({"neither": 4.0, "reversed": 4.0, "single": 4.0}, False, False),
    ],
)
def test_where_mixed_targets_part_from_mixed_images(numbers: dict[str, float], loss: bool, pair: bool) -> None:
    run = mixed(**numbers)
    found, paired = mixing.compare_loss(run), mixing.compare_pair(run)
    assert found is not None and (found.verdict == "at fault") == loss
    assert (paired is not None) == pair
    assert not pair or (paired is not None and paired.verdict == "at fault" and isinstance(paired.treatment, Intervention))
    assert not loss or (isinstance(found.treatment, Intervention) and found.treatment.name == "mixed_targets")


def test_few_mixed_images_say_nothing() -> None:
    assert mixing.compare_loss(healthy().run) is None and mixing.compare_pair(healthy().run) is None
    assert mixing.compare_loss(mixed(images=12.0, reversed=30.0)) is None
    assert found_at_fault(mixed(uneven=8.0, reversed=8.0)) and not found_at_fault(mixed(uneven=5.0, reversed=5.0))


def found_at_fault(run: RunRecord) -> bool:
    found = mixing.compare_loss(run)
    return found is not None and found.verdict == "at fault"


@pytest.mark.parametrize(("images", "anew", "mixes"), [(60.0, True, True), (60.0, False, False), (0.0, True, False)])
def test_targets_of_a_loss_that_is_asked_for_both_parts_in_turn_are_no_labels(images: float, anew: bool, mixes: bool) -> None:
    """What changes from pass to pass without any mix is a fault of the pairing."""
    run = mixed(images=images)
    passes = tuple(
        replace(p, samples=replace(p.samples, target=(p.samples.target + p.index * anew) % 4)) if p.phase == "train" else p
        for p in run.passes
    )
    run = replace(run, passes=passes)
    last = run.last_train
    assert last is not None and last.loss is not None and last.loss.target_kind == "index"
    assert run.mixes(last) == mixes
