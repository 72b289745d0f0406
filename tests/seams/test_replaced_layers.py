"""A layer that is replaced after a training has begun: what is trained from then on is the new one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.utils.data import DataLoader, TensorDataset

import valgap
from valgap.checks.model import untrained_parameters
from valgap.record.reader import read_record
from valgap.types import Case, Finding


def epoch(model: nn.Module, optimizer: torch.optim.Optimizer, classes: int) -> None:
    draw = torch.Generator().manual_seed(classes)
    for phase, n in ((True, 24), (False, 12)):
        model.train(phase)
        with torch.set_grad_enabled(phase):
            for x, y in DataLoader(TensorDataset(torch.randn(n, 3, 8, 8, generator=draw), torch.arange(n) % classes), 6):
                loss = nn.functional.cross_entropy(model(x), y)
                if phase:
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()


@pytest.mark.parametrize("anew", [False, True])
def test_a_new_head_is_watched_and_the_old_one_is_not(anew: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 3))
    with valgap.watch(out=tmp_path / "r", closing=20) as folder:
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        epoch(model, optimizer, 3)
        model[0].requires_grad_(False)
        model[2] = nn.Linear(144, 2)
        if anew:
            optimizer = torch.optim.SGD(model[2].parameters(), 0.01)
        for _ in range(2):
            epoch(model, optimizer, 2)
    run = read_record(folder)
    trained = run.trained_model
    assert trained is not None and trained.num_outputs == 2
    assert run.closing is not None and "val_eval" in run.closing.rescores, run.closing.skipped
    outcome = untrained_parameters.CHECK.detect(Case(run))
    assert isinstance(outcome, Finding) == (not anew)


def test_weights_that_are_handed_over_are_no_new_layers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 3))
    own = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}

    class Handed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return functional_call(model, own, (x,))  # type: ignore[no-any-return]

    with valgap.watch(out=tmp_path / "r", closing=5) as folder:
        optimizer = torch.optim.SGD(list(own.values()), 0.01)
        for _ in range(2):
            epoch(Handed(), optimizer, 3)
    assert read_record(folder).of_phase("train")
