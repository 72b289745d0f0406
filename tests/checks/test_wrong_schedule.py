"""TRN414."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import found, healthy, steps, without
from valgap.checks.wrong_schedule import CHECK
from valgap.types import Case, Clear, Closing, Intervention, NotApplicable, ScheduleState


def rates(trace: np.ndarray, *schedules: ScheduleState, **numbers: float) -> Case:
    """Three epochs whose steps have these learning rates."""
    case = healthy(schedules=schedules, closing=Closing(rescores=healthy().run.closing.rescores, numbers=numbers))  # type: ignore[union-attr]
    parts = iter(np.array_split(np.asarray(trace, np.float32), 3))
    passes = []
    for p in case.run.passes:
        if p.phase == "train":
            part = next(parts)
            p = replace(p, steps=steps(len(part), learning_rate=part[:, None]), optimizer_steps=len(part))
        passes.append(p)
    return Case(replace(case.run, passes=tuple(passes)))


@pytest.mark.parametrize("size", [1, 3, 7])
def test_a_decay_per_batch_that_was_meant_per_epoch(size: int) -> None:
    trace = 0.1 * 0.1 ** (np.arange(90) // size)
    case = rates(trace, ScheduleState(0, 0, "StepLR", 90, {"step_size": size, "gamma": 0.1}))
    finding = found(CHECK.detect(case))
    assert finding.evidence[0].value == pytest.approx(1 - 3 * size / 90, abs=0.04)
    assert CHECK.treat is not None
    assert CHECK.treat(case, finding) == Intervention("schedule_steps", {"phase": "train", "every": "epoch"})


def test_a_batch_length_stepped_per_epoch() -> None:
    case = rates(np.full(90, 4e-4), ScheduleState(4, 0, "OneCycleLR", 3, {"total_steps": 90}))
    finding = found(CHECK.detect(case))
    assert CHECK.treat is not None
    assert CHECK.treat(case, finding) == Intervention("schedule_steps", {"phase": "train", "every": "batch"})


def test_points_come_from_the_replay() -> None:
    trace = 0.1 * 0.1 ** (np.arange(90) // 3)
    numbers = {"replay_recorded": 0.74, "replay_constant_rate": 0.85, "replay_constant_rate_p": 0.01, "replay_n": 100.0}
    assert found(CHECK.detect(rates(trace, **numbers))).severity_points == pytest.approx(11)


def test_sound_schedules_are_silent() -> None:
    t = np.linspace(0, 1, 90)
    assert isinstance(
        CHECK.detect(rates(0.05 * (1 + np.cos(np.pi * t)), ScheduleState(4, 0, "CosineAnnealingLR", 90, {"T_max": 90}))), Clear
    )
    assert isinstance(CHECK.detect(rates(0.1 * (1 - t))), Clear)
    assert isinstance(CHECK.detect(rates(np.full(90, 1e-6))), Clear)
    assert isinstance(CHECK.detect(rates(np.full(90, 0.1), ScheduleState(4, 0, "StepLR", 3, {"step_size": 7}))), Clear)
    warm = np.concatenate([np.linspace(1e-5, 0.1, 30), np.full(60, 0.1)])
    assert isinstance(CHECK.detect(rates(warm)), Clear)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "train")), NotApplicable)
