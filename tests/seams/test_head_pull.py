"""What the optimizer is given for the last layer, beside the loss's own gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from torch import nn
from torch.utils.data import DataLoader

import valgap
from tests.seams.test_models_seen import images, net
from valgap.record.reader import read_record
from valgap.reference.updating import beside_steps
from valgap.types import Compared, Measured, RunRecord

BEHIND = Compared("unknown", "", Measured(39.0, 32.0, 46.0), missing="more steps")
Change = Callable[[Iterable[nn.Parameter]], object]


def nothing(parameters: Iterable[nn.Parameter]) -> None:
    pass


def clipped(parameters: Iterable[nn.Parameter]) -> None:
    nn.utils.clip_grad_norm_(parameters, 1.0)


def by_value(parameters: Iterable[nn.Parameter]) -> None:
    nn.utils.clip_grad_value_(parameters, 0.1)


def noise(parameters: Iterable[nn.Parameter]) -> None:
    for p in parameters:
        p.grad = p.grad + 10 * torch.randn_like(p)  # type: ignore[operator]


def recorded(
    folder: Path, change: Change = nothing, unscale: bool | None = None, cast: bool = False, decay: float = 0.0, views: int = 1
) -> RunRecord:
    """A training whose gradients are changed before the step; with a GradScaler before or after they are unscaled."""
    torch.manual_seed(0)
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    scaler = torch.amp.GradScaler("cpu", enabled=unscale is not None)
    with valgap.watch(out=folder / "r", closing=0):
        for _ in range(2):
            for x, y in DataLoader(images(40, 0), 8):
                optimizer.zero_grad()
                with torch.autocast("cpu", torch.bfloat16, enabled=cast):
                    loss = torch.stack([functional.cross_entropy(model(x + 0.1 * v), y) for v in range(views)]).mean()
                loss = loss + 0.5 * decay * torch.stack([p.square().sum() for p in model.parameters()]).sum()
                scaler.scale(loss).backward()
                if unscale:
                    scaler.unscale_(optimizer)
                change(model.parameters())
                scaler.step(optimizer)
                scaler.update()
            model.eval()
            with torch.no_grad():
                for x, _ in DataLoader(images(8, 1), 4):
                    model(x)
            model.train()
    return read_record(folder / "r")


def numbers(run: RunRecord, name: str) -> np.ndarray:
    found = np.concatenate([getattr(p.steps, name) for p in run.of_phase("train")])
    return np.asarray(found[np.isfinite(found)])


@pytest.mark.parametrize(
    "way",
    [
        {},
        {"change": clipped},
        {"change": by_value},
        {"change": clipped, "unscale": True},
        {"unscale": False},
        {"cast": True},
        {"decay": 5e-4},
    ],
)
def test_sound_ways_are_no_fault_however_far_the_network_is_behind(way: dict[str, object], tmp_path: Path) -> None:
    run = recorded(tmp_path, **way)  # type: ignore[arg-type]
    assert len(numbers(run, "head_ratio")) >= 6
    assert (numbers(run, "head_cosine") > 0.5).all() and (numbers(run, "head_ratio") > 0.05).all()
    assert (numbers(run, "head_ratio") < 1.1).all()
    assert beside_steps(run, BEHIND) is BEHIND


def test_gradients_that_are_clipped_while_they_are_scaled_are_told(tmp_path: Path) -> None:
    run = recorded(tmp_path, clipped, unscale=False)
    assert (numbers(run, "head_ratio") < 1e-3).all()
    found = beside_steps(run, BEHIND)
    assert found.verdict == "at fault" and found.points == BEHIND.points and "unscale_" in found.remedy
    moved = tuple(replace(p, steps=replace(p.steps, update_ratio=p.steps.update_ratio * 0 + 1e-3)) for p in run.passes)
    assert beside_steps(replace(run, passes=moved), BEHIND) is BEHIND  # by an optimizer to which the size is all one
    assert beside_steps(run, replace(BEHIND, points=Measured(1.0, -2.0, 4.0))).verdict == "unknown"


def test_gradients_of_another_direction_are_told(tmp_path: Path) -> None:
    found = beside_steps(recorded(tmp_path, noise), BEHIND)
    assert found.verdict == "at fault" and "other gradients" in found.summary


def test_two_views_of_a_batch_say_nothing(tmp_path: Path) -> None:
    assert not len(numbers(recorded(tmp_path, views=2), "head_ratio"))
