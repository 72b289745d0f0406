"""The gap in parts: it sums to the reported gap, and a part that was not measured is not made up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import TRAIN, VAL, healthy, rescored, samples, with_phase, without
from tests.checks.pictures import pictures
from valgap.gap import gap_parts
from valgap.types import Case, GapPart

TRAIN_IDS, VAL_IDS = np.arange(TRAIN), np.arange(TRAIN, TRAIN + VAL)


def by_name(parts: tuple[GapPart, ...]) -> dict[str, GapPart]:
    return {p.name: p for p in parts}


def total(case: Case) -> float:
    train, val = case.run.last_train, case.run.last_validation
    assert train is not None and val is not None
    return 100 * (train.samples.accuracy - val.samples.accuracy)


@pytest.mark.parametrize("train_again", [0.6, 0.95])
@pytest.mark.parametrize("val_again", [0.5, 0.8])
def test_parts_sum_to_the_gap(train_again: float, val_again: float) -> None:
    case = rescored(healthy(), train_eval=samples(TRAIN_IDS, train_again), val_eval=samples(VAL_IDS, val_again))
    parts = gap_parts(case.run, None)
    assert sum(p.points for p in parts if p.kind == "part") == pytest.approx(total(case))
    named = by_name(parts)
    assert named["overfit and shift"].points == pytest.approx(100 * (train_again - val_again), abs=1)
    assert named["underfit"].points == pytest.approx(100 * (1 - train_again), abs=1)
    assert "shift" not in named


def test_a_held_out_probe_tells_shift_from_overfit() -> None:
    case = rescored(healthy(), train_eval=samples(TRAIN_IDS, 0.9), val_eval=samples(VAL_IDS, 0.6))
    images = pictures(apart=1.0)
    held = images.held_out
    assert held is not None
    named = by_name(gap_parts(case.run, images))
    shift = named["shift"]
    assert shift.points == pytest.approx(100 * (held.train_accuracy - held.val_accuracy))
    assert shift.low is not None and shift.high is not None and shift.low < shift.points < shift.high
    assert named["overfit"].points == pytest.approx(30 - shift.points, abs=1)
    assert sum(p.points for p in named.values() if p.kind == "part") == pytest.approx(total(case))


def test_another_preparation_stands_beside() -> None:
    case = rescored(
        healthy(), val_eval=samples(VAL_IDS, 0.5), val_train_norm=samples(VAL_IDS, 0.8), val_weights=samples(VAL_IDS, 0.6)
    )
    part = by_name(gap_parts(case.run, None))["preprocessing"]
    assert part.kind == "beside"
    assert part.points == pytest.approx(30)
    assert part.low is not None and part.high is not None and part.low < 30 < part.high


def test_samples_that_are_not_known_are_not_paired() -> None:
    unknown = np.full(VAL, -1)
    case = rescored(healthy(), val_eval=samples(unknown, 0.5), val_train_norm=samples(unknown, 0.8))
    assert "preprocessing" not in by_name(gap_parts(case.run, None))


def test_without_closing_measurements_or_a_phase() -> None:
    case = healthy()
    bare = replace(case.run, closing=None)
    named = by_name(gap_parts(bare, None))
    assert set(named) == {"overfit and shift", "noise"}
    assert named["overfit and shift"].points == pytest.approx(total(case))
    assert gap_parts(without(case, "validation").run, None) == ()
    unlabelled = replace(samples(TRAIN_IDS), target=np.full(TRAIN, -1, np.int32))
    assert gap_parts(with_phase(case, "train", samples=unlabelled).run, None) == ()


def test_what_a_few_images_gave_is_left_out_and_the_rest_has_an_interval() -> None:
    few = rescored(healthy(), train_eval=samples(TRAIN_IDS[:4], 0.0), val_eval=samples(VAL_IDS, 0.6))
    parts = by_name(gap_parts(few.run, None))
    assert "underfit" not in parts and "measurement of train" not in parts
    assert sum(p.points for p in parts.values() if p.kind == "part") == pytest.approx(total(few))
    some = by_name(gap_parts(rescored(few, train_eval=samples(TRAIN_IDS[:40], 0.5)).run, None))
    for name in ("measurement of train", "overfit and shift", "underfit"):
        part = some[name]
        assert part.low is not None and part.high is not None and part.low < part.points < part.high
    assert "40" in some["underfit"].told
