"""A checkpoint that is loaded into a new object and validated counts as the trained model's last validation."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import valgap
from valgap.checks.evaluation import last_not_best_checkpoint
from valgap.checks.shared.progress import course
from valgap.record.reader import read_record
from valgap.types import Case, Finding


def score(model: nn.Module, loader: DataLoader[tuple[torch.Tensor, ...]]) -> None:
    model.eval()
    with torch.no_grad():
        for x, y in loader:
            nn.functional.cross_entropy(model(x), y)


class Named(TensorDataset):
    """Images that have names, as files have: another object of the same images knows them by these."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor, folder: Path) -> None:
        super().__init__(x, y)
        self.samples = [(str(folder / f"{i}.png"), int(target)) for i, target in enumerate(y.tolist())]


@pytest.mark.parametrize("anew", [False, True])
@pytest.mark.parametrize("which", ["first", "last", "another"])
def test_what_a_new_object_holds_is_told_by_its_weights(which: str, anew: bool, tmp_path: Path) -> None:
    """``anew``: its images come from a data set that is made anew, too, as a framework's second setup does."""
    draw = torch.Generator().manual_seed(0)
    y = torch.arange(160) % 4
    x = torch.randn(160, 3, 8, 8, generator=draw) + 0.25 * torch.randn(4, 3, 8, 8, generator=draw)[y]
    train, val = DataLoader(TensorDataset(x[:80], y[:80]), 20), DataLoader(Named(x[80:], y[80:], tmp_path), 20)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    other = copy.deepcopy(model)
    with valgap.watch(out=tmp_path / "r", closing=10) as folder:
        optimizer, states = torch.optim.SGD(model.parameters(), 0.01), []
        for _ in range(12):
            model.train()
            for images, target in train:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(images), target).backward()
                optimizer.step()
            score(model, val)
            states.append(copy.deepcopy(model.state_dict()))
        given = {"first": states[0], "last": states[-1], "another": {k: 0.5 * v for k, v in states[0].items()}}[which]
        other.load_state_dict(given)
        score(other, DataLoader(Named(x[80:], y[80:], tmp_path), 20) if anew else val)
    run = read_record(folder)
    last = run.passes[-1]
    assert (last.phase == "validation") == (which != "another")
    told = [w for w in run.weights_loaded if w.after_pass == last.index]
    assert bool(told) == (which != "another")
    if told:
        assert told[0].changed == (which == "first")
        assert told[0].state_of_pass == (1 if which == "first" else run.passes[-2].index)
    outcome = last_not_best_checkpoint.CHECK.detect(Case(run))
    assert (isinstance(outcome, Finding) and "loaded at the end" in outcome.summary) == (which == "first")


class Holder(nn.Module):
    """Holds the network that it trains, as a framework's module does: it is saved and loaded, and the network is called."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))


@pytest.mark.parametrize("which", ["first", "last"])
def test_weights_loaded_through_what_holds_the_model(which: str, tmp_path: Path) -> None:
    """And validated on a data set that was made anew: the curve goes on over it."""
    draw = torch.Generator().manual_seed(0)
    y = torch.arange(160) % 4
    x = torch.randn(160, 3, 8, 8, generator=draw) + 0.25 * torch.randn(4, 3, 8, 8, generator=draw)[y]
    train = DataLoader(TensorDataset(x[:80], y[:80]), 20)
    torch.manual_seed(0)
    holder = Holder()
    with valgap.watch(out=tmp_path / "r", closing=10) as folder:
        optimizer, states = torch.optim.SGD(holder.parameters(), 0.01), []
        val = DataLoader(Named(x[80:], y[80:], tmp_path), 20)
        for _ in range(12):
            holder.train()
            for images, target in train:
                optimizer.zero_grad()
                nn.functional.cross_entropy(holder.net(images), target).backward()
                optimizer.step()
            score(holder.net, val)
            states.append(copy.deepcopy(holder.state_dict()))
        holder.load_state_dict(states[0 if which == "first" else -1])
        score(holder.net, DataLoader(Named(x[80:], y[80:], tmp_path), 20))
    run = read_record(folder)
    (told,) = run.weights_loaded
    assert not told.before_training and told.changed == (which == "first")
    assert told.state_of_pass == (1 if which == "first" else run.passes[-2].index)
    seen = course(run)
    assert seen is not None and len(seen.passes) == 13
    outcome = last_not_best_checkpoint.CHECK.detect(Case(run))
    assert (isinstance(outcome, Finding) and "loaded at the end" in outcome.summary) == (which == "first")
