"""Optimizers that ask a closure for the loss, some again and again: a step has one gradient, whatever it searches with."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

import valgap
from valgap.checks.training.wrong_step_count import detect
from valgap.record.reader import read_record
from valgap.types import Case, Clear

X, Y = torch.randn(40, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2


def test_a_step_that_searches_makes_one_backward_pass(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    own = torch.optim.LBFGS(net.parameters(), max_iter=8, line_search_fn="strong_wolfe")
    asked = []

    def closure() -> torch.Tensor:
        own.zero_grad()
        loss = functional.cross_entropy(net(X), Y)
        loss.backward()
        asked.append(1)
        return loss

    with valgap.watch(out=tmp_path / "r", closing=0) as folder:
        for _ in range(5):
            own.step(closure)  # type: ignore[arg-type]
    run = read_record(folder)
    train = run.of_phase("train")
    assert len(asked) > 25 and sum(p.backwards for p in train) == sum(p.optimizer_steps for p in train) == 5
    assert [b for p in train for b in p.steps.backwards.tolist()] == [1] * 5
    assert isinstance(detect(Case(run)), Clear)
