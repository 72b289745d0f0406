"""A shortened program ends where its next training pass would begin, whatever else it does with the training data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from valgap.record.writer import RecordWriter
from valgap.seams.acting import Acting
from valgap.seams.epochs import StopProgram
from valgap.seams.recorder import Recorder


def epoch(order: str, train: TensorDataset, val: TensorDataset, net: nn.Module, done: list[str]) -> None:
    """One epoch: (t)rain with backward, (g) by gradients of its own, (s)core the training data, (v)alidate."""
    for act in order:
        for images, targets in DataLoader(val if act == "v" else train, 4):
            with torch.set_grad_enabled(act in "tg"):
                loss = functional.cross_entropy(net(images), targets)
            if act == "t":
                loss.backward()
            elif act == "g":
                torch.autograd.grad(loss, list(net.parameters()))
        done.append(act)


@pytest.mark.parametrize("order", ["tv", "tsv", "tvs", "tsvs", "gsv"])
@pytest.mark.parametrize("most", [1, 2])
def test_it_ends_after_so_many_trainings_and_their_validation(order: str, most: int, tmp_path: Path) -> None:
    images = torch.rand(8, 3, 6, 6)
    train, val = (TensorDataset(images, torch.arange(8) % 2) for _ in range(2))
    net, done = nn.Sequential(nn.Flatten(), nn.Linear(108, 2)), list[str]()
    acting = Acting([], train=[0], validation=[1], epochs=most)
    acting.attach(Recorder(RecordWriter(tmp_path / "r")))
    acting.attach_outside()
    try:
        with pytest.raises(StopProgram):
            for _ in range(4):
                epoch(order, train, val, net, done)
    finally:
        acting.detach_outside()
        acting.detach()
    assert "".join(done) == (order * most).rstrip("s")
