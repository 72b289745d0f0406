"""Scores that a program takes of arrays after its passes: held against the answers and labels of the same images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Subset, TensorDataset

import valgap
from valgap.record.reader import read_record
from valgap.reference import measuring
from valgap.types import Compared, RunRecord

N, CLASSES = 90, 3


def data() -> TensorDataset:
    """Images whose mean says their class, most of the time."""
    draw = torch.Generator().manual_seed(0)
    y = torch.randint(CLASSES, (N,), generator=draw)
    x = torch.randn(N, 3, 8, 8, generator=draw) + 0.35 * (y[:, None, None, None] - 1)
    return TensorDataset(x, y)


def answers(net: nn.Module, loader: DataLoader) -> np.ndarray:
    net.eval()
    with torch.no_grad():
        return torch.cat([net(x).argmax(1) for x, _ in loader]).numpy()


def trained(net: nn.Module, images: Subset) -> None:
    own = torch.optim.SGD(net.parameters(), 0.05)
    for _ in range(8):
        net.train()
        for x, y in DataLoader(images, 15, shuffle=True):
            own.zero_grad()
            functional.cross_entropy(net(x), y).backward()
            own.step()


def recorded(folder: Path, shuffled: bool, folds: int) -> RunRecord:
    torch.manual_seed(0)
    whole, every, scored = data(), np.arange(N), []
    labels = whole.tensors[1].numpy()
    with valgap.watch(out=folder / "r", closing=0):
        for fold in range(folds):
            inside = every[every % 3 == fold]
            net = nn.Sequential(nn.Flatten(), nn.Linear(192, CLASSES))
            trained(net, Subset(whole, every[every % 3 != fold].tolist()))
            own = answers(net, DataLoader(Subset(whole, inside.tolist()), 8, shuffle=shuffled))
            scored.append((labels[inside], own))
            accuracy_score(labels[inside].tolist(), own)
        true, predicted = (np.concatenate(parts) for parts in zip(*scored, strict=True))
        accuracy_score(true, predicted)
        f1_score(true, predicted, average="macro")
    return read_record(folder / "r")


@pytest.mark.parametrize("folds", [1, 2])
@pytest.mark.parametrize("shuffled", [False, True])
def test_labels_in_another_order_than_the_answers_are_told(tmp_path: Path, shuffled: bool, folds: int) -> None:
    run = recorded(tmp_path, shuffled, folds)
    assert run.recorder_errors == () and len(run.scored) == (folds + 1 if folds > 1 else 1)
    assert len(run.scored[-1].true) == 30 * folds
    found: Compared = measuring.compare(run)
    assert found.verdict == ("at fault" if shuffled else "sound"), found
    if shuffled:
        assert found.points is not None and found.points.value > 15 and "another order" in found.summary


def test_what_is_no_score_of_a_known_pass_says_nothing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = data()
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, CLASSES))
    with valgap.watch(out=tmp_path / "r", closing=0):
        trained(net, Subset(whole, range(60)))
        own = answers(net, DataLoader(Subset(whole, range(60, N)), 8))
        accuracy_score(["a", "b"] * 15, ["a", "a"] * 15)  # names
        accuracy_score(np.zeros((30, 2), int), np.zeros((30, 2), int))  # several labels of an image
        accuracy_score(np.arange(30) % 3, (own + 1) % 3)  # other answers than the pass has
    run = read_record(tmp_path / "r")
    assert len(run.scored) == 1 and measuring.compare(run).verdict == "unknown"
