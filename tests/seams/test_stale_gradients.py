"""Whether gradients of earlier steps are still there: of each optimizer by itself."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

import valgap
from valgap.record.reader import read_record

X, Y = torch.randn(40, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2
Train = Callable[[nn.Module], None]


def _in_turn(net: nn.Module) -> None:
    """Body and head have an optimizer each, which clears its gradients right before its own backward."""
    body, head = (torch.optim.SGD(part.parameters(), 0.01) for part in net.children())  # type: ignore[arg-type]
    for x, y in zip(X.split(8), Y.split(8), strict=True):
        for own in (body, head):
            own.zero_grad()
            functional.cross_entropy(net(x), y).backward()
            own.step()


def _closure(own: torch.optim.Optimizer, net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    own.zero_grad()
    loss = functional.cross_entropy(net(x), y)
    loss.backward()
    return loss


def _anew(net: nn.Module) -> None:
    """Each part of the data has a head and an optimizer of its own, as folds have."""
    body = next(net.children())
    for x, y in zip(X.split(8), Y.split(8), strict=True):
        head = nn.Linear(6, 2)
        own = torch.optim.LBFGS(head.parameters(), max_iter=3)
        own.step(functools.partial(_closure, own, nn.Sequential(body, head), x, y))  # type: ignore[arg-type]


def _never_cleared(net: nn.Module) -> None:
    own = torch.optim.SGD(net.parameters(), 0.01)
    for x, y in zip(X.split(8), Y.split(8), strict=True):
        functional.cross_entropy(net(x), y).backward()
        own.step()


@pytest.mark.parametrize(("train", "stale"), [(_in_turn, False), (_anew, False), (_never_cleared, True)])
def test_only_what_an_optimizer_left_itself_counts(tmp_path: Path, train: Train, stale: bool) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(48, 6)), nn.Linear(6, 2))
    with valgap.watch(out=tmp_path / "r", closing=0) as folder:
        train(net)
    flags = [f for p in read_record(folder).of_phase("train") for f in p.steps.stale_gradients.tolist()]
    assert flags and (1 in flags) == stale
