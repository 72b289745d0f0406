"""Layers held in every way that people use: meant where it follows the network's build, a fault where it does not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as functional
from torch import nn
from torch.utils.data import DataLoader

import valgap
from tests.seams.test_models_seen import CLASSES, images
from valgap.record.reader import read_record
from valgap.types import Finding

pytestmark = pytest.mark.takes(12)


class Net(nn.Module):
    """Two blocks and a head; ``mode`` says how the blocks are kept from learning inside ``forward``."""

    def __init__(self, mode: str = "") -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(16, CLASSES)
        self.mode = mode

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mode == "no_grad":
            with torch.no_grad():
                f = self.second(self.first(x))
        elif self.mode == "inference":
            with torch.inference_mode():
                f = self.second(self.first(x))
            f = f.clone()
        elif self.mode == "detach":
            f = self.second(self.first(x)).detach()
        else:
            f = self.second(self.first(x))
        return self.head(f)  # type: ignore[no-any-return]


def given(mode: str = "") -> Net:
    """A network with weights from elsewhere and a new head."""
    draw = torch.Generator().manual_seed(0)
    source, model = Net(), Net(mode)
    state = {
        k: v + 0.05 * torch.rand(v.shape, generator=draw) if v.is_floating_point() else v for k, v in source.state_dict().items()
    }
    model.load_state_dict(state)
    model.head = nn.Linear(16, CLASSES)
    for m in (model.first, model.second):
        m.eval()
        m.train = lambda mode=True, m=m: m  # type: ignore[method-assign,misc,assignment]
    return model


def groups(model: Net, rate: float) -> list[dict[str, Any]]:
    blocks = [*model.first.parameters(), *model.second.parameters()]
    return [{"params": blocks, "lr": rate}, {"params": list(model.head.parameters())}]


def norms(model: Net) -> set[int]:
    return {id(p) for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}


def told(folder: Path, model: nn.Module, parameters: Any, before_step: Callable[[], None] = lambda: None) -> tuple[str, str]:
    """(what MOD303 says: "Finding" or "Clear"; its summary) after two epochs."""
    optimizer = torch.optim.SGD(parameters, 0.1)
    with valgap.watch(out=folder / "r", closing=0):
        for _ in range(2):
            model.train()
            for x, y in DataLoader(images(24, 0), 8):
                optimizer.zero_grad()
                functional.cross_entropy(model(x), y).backward()
                before_step()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                for x, _ in DataLoader(images(15, 1), 8):
                    model(x)
    record = read_record(folder / "r")
    assert record.recorder_errors == ()
    outcome = next(j.outcome for j in valgap.diagnose(folder / "r", images=0, select=["MOD303"]).judged)
    sure = isinstance(outcome, Finding) and outcome.confidence >= 0.5
    return "Finding" if sure else type(outcome).__name__, outcome.summary  # type: ignore[union-attr]


@pytest.mark.parametrize("mode", ["no_grad", "inference", "detach"])
def test_inside_forward(mode: str, tmp_path: Path) -> None:
    model = given(mode)
    assert told(tmp_path / "given", model, model.parameters())[0] == "Clear"
    new = Net(mode)  # the same with random weights: nothing was ever learnt there
    assert told(tmp_path / "new", new, new.parameters())[0] == "Finding"


@pytest.mark.parametrize("how", ["flag", "left out", "rate 0", "zeroed", "norms left out", "first block", "adapter"])
def test_held_by_plan(how: str, tmp_path: Path) -> None:
    model = given()
    parameters: Any = list(model.parameters())
    hook: Callable[[], None] = lambda: None  # noqa: E731
    if how == "flag":
        model.first.requires_grad_(False)
        model.second.requires_grad_(False)
    elif how == "left out":
        parameters = model.head.parameters()
    elif how == "rate 0":
        parameters = groups(model, 0.0)
    elif how == "zeroed":
        hook = lambda: [p.grad.zero_() for m in (model.first, model.second) for p in m.parameters()] and None  # type: ignore[union-attr]  # noqa: E731
    elif how == "norms left out":
        parameters = [p for p in parameters if id(p) not in norms(model)]
    elif how == "first block":
        parameters = [*model.second.parameters(), *model.head.parameters()]
    elif how == "adapter":
        model.first.append(nn.Conv2d(16, 16, 1))
        parameters = [*model.first[-1].parameters(), *model.head.parameters()]
    verdict, summary = told(tmp_path, model, parameters, hook)
    assert verdict == "Clear", summary


@pytest.mark.parametrize("everything", [False, True])
def test_unfrozen_without_a_word_to_the_optimizer(everything: bool, tmp_path: Path) -> None:
    """The head first, then all layers: of an optimizer that has the head alone they learn nothing."""
    model, steps = given(), 0
    blocks = [*model.first.parameters(), *model.second.parameters()]
    for p in blocks:
        p.requires_grad_(False)

    def unfreeze() -> None:
        nonlocal steps
        steps += 1
        for p in blocks if steps == 3 else ():
            p.requires_grad_(True)

    parameters = list(model.parameters()) if everything else list(model.head.parameters())
    verdict, summary = told(tmp_path, model, parameters, unfreeze)
    assert (verdict == "Finding" and "no optimizer holds them" in summary) != everything, summary


@pytest.mark.parametrize("how", ["head left out", "head replaced", "copied after", "hole", "new block left out"])
def test_held_by_mistake(how: str, tmp_path: Path) -> None:
    model: Net = given()
    parameters: Any = list(model.parameters())
    if how == "head left out":
        parameters = [*model.first.parameters(), *model.second.parameters()]
    elif how == "head replaced":
        model.head = nn.Linear(16, CLASSES)
    elif how == "copied after":
        model = copy.deepcopy(model)
    elif how == "hole":
        parameters = [*model.first.parameters(), *model.head.parameters()]
    elif how == "new block left out":
        model.second[0] = nn.Conv2d(16, 16, 3)
        parameters = [p for p in model.parameters() if p is not model.second[0].weight]
    verdict, summary = told(tmp_path, model, parameters)
    assert verdict == "Finding", summary


class Listed(nn.Module):
    """Blocks in a plain list, which are no parts of the module."""

    def __init__(self, teacher: bool = False) -> None:
        super().__init__()
        self.blocks = [nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU()), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())]
        self.teacher = [Net()] if teacher else []
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for other in self.teacher:
            with torch.no_grad():
                other(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("how", ["no optimizer", "an optimizer", "given weights", "teacher"])
def test_layers_in_a_list(how: str, tmp_path: Path) -> None:
    model = Listed(teacher=how == "teacher")
    parameters = list(model.parameters())
    if how in ("an optimizer", "teacher"):  # that was told of them by hand
        parameters += [p for b in model.blocks for p in b.parameters()]
    if how == "given weights":
        model.blocks[0][0].weight.data.fill_(0.03)
    verdict, summary = told(tmp_path, model, parameters)
    assert verdict == ("Finding" if how == "no optimizer" else "Clear"), summary
