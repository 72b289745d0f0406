"""Norms at sampled steps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from valgap.seams.looking.tracked import TrackedModel
from valgap.seams.recording.step_norms import LOOKED_AT, StepMeter, _part


def test_a_large_layers_update_is_measured_on_a_part_of_it() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(96, 130, 3), nn.Conv2d(130, 96, 3).to(memory_format=torch.channels_last))
    tracked, meter = TrackedModel(0, model), StepMeter()
    old = [p.detach().clone() for p in model.parameters()]
    for p in model.parameters():
        p.grad = torch.randn_like(p) * torch.linspace(0.1, 2.0, p.shape[0]).reshape(-1, *[1] * (p.ndim - 1))
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    meter.before(optimizer, [tracked])
    optimizer.step()
    measured = meter.after()
    assert measured is not None and measured.update_ratio is not None and measured.group_update_ratio is not None
    size = torch.stack([o.norm() for o in old]).norm()
    change = torch.stack([(p.detach() - o).norm() for p, o in zip(model.parameters(), old, strict=True)]).norm()
    assert float(measured.update_ratio) == pytest.approx(float(change / size), rel=0.02)
    assert float(measured.grad) == pytest.approx(100 * float(change), rel=1e-4)
    assert all(_part(p).numel() < 0.4 * p.numel() for p in model.parameters() if p.numel() > 3 * LOOKED_AT)


@pytest.mark.parametrize("tensor", [torch.randn(9, 7), torch.randn(400, 800)[:, ::2], torch.randn(300, 400).t()])
def test_small_ones_and_views_are_measured_whole(tensor: torch.Tensor) -> None:
    assert _part(tensor).numel() == tensor.numel()


@pytest.mark.parametrize(
    ("between", "least", "most"),
    [
        (lambda p: None, 0.0, 0.0),
        (lambda p: p.mul_(0.5), 2.0, 200.0),
        (lambda p: p.mul_(p.abs() > 0.01), 0.0, 0.0),  # a mask of pruned weights
    ],
)
def test_what_the_program_does_to_its_weights_between_steps_is_held_against_the_steps(
    between: Callable[[torch.Tensor], object], least: float, most: float
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(12, 12) for _ in range(9)))
    meter = StepMeter()
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    meter.before(optimizer, [TrackedModel(0, model)])
    optimizer.step()
    measured = meter.after()
    assert measured is not None and measured.outside_ratio is None
    with torch.no_grad():
        for p in model.parameters():
            between(p)
    meter.outside()
    assert measured.outside_ratio is not None and least <= float(measured.outside_ratio) <= most
    meter.outside()  # there is nothing more to look at
