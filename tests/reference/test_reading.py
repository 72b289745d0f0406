"""STG603, STG604: how images are read, whatever the fault is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.reference.pictures_seen import SIDE, as_it_is, run_on
from valgap.reference import Stages

MIXED = np.random.default_rng(0).permutation(SIDE * SIDE)


def turned(values: Any, place: int) -> Any:
    return np.rot90(values, 1, axes=(0, 1))


def scattered(values: Any, place: int) -> Any:
    return values.reshape(-1, 3)[MIXED].reshape(values.shape)


def neighbours(values: Any, place: int) -> Any:
    """Crops, mirrors and light: what a sound training does to its pictures."""
    rng = np.random.default_rng(place)
    values = values[:, ::-1] if place % 2 else values
    top, left = rng.integers(0, 6, 2)
    values = values[top : top + SIDE - 6, left : left + SIDE - 6]
    grid = np.linspace(0, SIDE - 7, SIDE).astype(int)
    return np.clip(values[grid][:, grid] * rng.uniform(0.8, 1.2), 0, 1)


def test_what_only_validation_does_is_found_there(tmp_path: Path) -> None:
    stages = Stages(*run_on(tmp_path, neighbours, turned))
    found = stages.compared("read_val")
    assert found.verdict == "at fault" and found.confidence > 0.7
    assert found.points is not None and found.points.low > 0
    assert stages.compared("read_train").verdict == "sound"
    assert "turned by a quarter" in found.summary


def test_what_both_sides_do_costs_as_well(tmp_path: Path) -> None:
    stages = Stages(*run_on(tmp_path, scattered, scattered))
    assert stages.compared("read_train").verdict == "at fault"
    assert stages.compared("read_val").verdict == "sound"  # it reads as training does


def test_what_training_alone_does_at_random_is_augmentation_until_it_is_too_much(tmp_path: Path) -> None:
    fixed = Stages(*run_on(tmp_path / "fixed", scattered, as_it_is)).compared("read_train")
    assert fixed.verdict == "at fault" and fixed.points is not None
    run, images = run_on(tmp_path / "random", neighbours, as_it_is)
    told = Stages(run, images)
    assert told.compared("read_train").verdict == "sound"


def test_sound_reading_is_silent(tmp_path: Path) -> None:
    stages = Stages(*run_on(tmp_path, neighbours, as_it_is))
    assert {stages.compared(s).verdict for s in ("read_train", "read_val", "pair", "draw")} == {"sound"}


def test_without_files_it_says_what_is_missing(tmp_path: Path) -> None:
    run, _ = run_on(tmp_path, each=12)
    assert Stages(run, None).compared("read_val").missing == "the image files of this run"
