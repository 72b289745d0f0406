"""What a program does to its weights beside the steps of its optimizer: what it takes back in time does not count."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from torch import nn
from torch.utils.data import DataLoader

import valgap
from tests.seams.test_models_seen import images, net
from valgap.checks.training.wrong_step_count import CHECK
from valgap.record.reader import read_record
from valgap.reference import Stages
from valgap.types import Case, Clear, RunRecord

EPOCHS, RHO = 6, 0.2


def validate(model: nn.Module) -> None:
    model.eval()
    with torch.no_grad():
        for x, _ in DataLoader(images(8, 1), 4):
            model(x)
    model.train()


def recorded(folder: Path, climb: bool = False, average: bool = False, restore: bool = True) -> RunRecord:
    """A training that takes its gradients at climbed weights, or validates averaged ones, and goes back to its own, or not."""
    torch.manual_seed(0)
    model = net()
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, 0.05)
    shadow = copy.deepcopy(model)
    with valgap.watch(out=folder / "r", closing=0):
        for _ in range(EPOCHS):
            for x, y in DataLoader(images(40, 0), 8):
                optimizer.zero_grad()
                functional.cross_entropy(model(x), y).backward()
                if climb:
                    moves = [RHO * p.grad for p in parameters]  # type: ignore[operator]
                    with torch.no_grad():
                        torch._foreach_add_(parameters, moves)
                    optimizer.zero_grad()
                    functional.cross_entropy(model(x), y).backward()
                    if restore:
                        with torch.no_grad():
                            torch._foreach_sub_(parameters, moves)
                optimizer.step()
                with torch.no_grad():
                    for slow, own in zip(shadow.parameters(), parameters, strict=True):
                        slow.lerp_(own, 0.05)
            own_state = copy.deepcopy(model.state_dict())
            if average:
                model.load_state_dict(shadow.state_dict())
            validate(model)
            if average and restore:
                model.load_state_dict(own_state)
    return read_record(folder / "r")


@pytest.mark.parametrize("way", ["climb", "average"])
def test_weights_that_are_put_back_in_time_are_no_fault(way: str, tmp_path: Path) -> None:
    run = recorded(tmp_path, **{way: True})
    assert not run.own_updates  # what its optimizer trains
    assert isinstance(CHECK.detect(Case(run)), Clear)  # each gradient is used
    for one in run.of_phase("train"):
        known = one.steps.outside_ratio[np.isfinite(one.steps.outside_ratio)]
        assert len(known) and (known < 1e-3).all()
    shares = np.concatenate([p.steps.taken_back for p in run.of_phase("train")])
    assert np.isfinite(shares).sum() == EPOCHS - 1 and (np.abs(shares[np.isfinite(shares)]) < 1e-3).all()
    assert Stages(run, None).compared("update").verdict != "at fault"


@pytest.mark.parametrize(("way", "words"), [("climb", "itself moves its weights"), ("average", "takes back")])
def test_weights_that_are_not_put_back_are_a_fault_of_the_updates(way: str, words: str, tmp_path: Path) -> None:
    run = recorded(tmp_path, **{way: True}, restore=False)
    found = Stages(run, None).compared("update")
    assert found.verdict == "at fault" and words in found.summary
