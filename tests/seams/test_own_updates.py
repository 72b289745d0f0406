"""Programs that change their weights without torch.optim: steps are steps, and checks of rates do not apply."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as functional
from torch import nn
from torch.utils.data import DataLoader

import valgap
from tests.seams.test_models_seen import images, net
from valgap.record.reader import read_record
from valgap.seams.looking.described import model_facts
from valgap.seams.looking.model_states import ModelStates
from valgap.seams.looking.tracked import TrackedModel
from valgap.types import NotApplicable, RunRecord

RATE = 0.1


def in_place(model: nn.Module) -> None:
    with torch.no_grad():
        for p in model.parameters():
            p -= RATE * p.grad  # type: ignore[operator]


def on_data(model: nn.Module) -> None:
    for p in model.parameters():
        p.data.add_(p.grad, alpha=-RATE)  # type: ignore[arg-type]


def new_data(model: nn.Module) -> None:
    for p in model.parameters():
        p.data = p.data - RATE * p.grad  # type: ignore[operator]


def all_at_once(model: nn.Module) -> None:
    torch._foreach_add_([p.data for p in model.parameters()], [p.grad for p in model.parameters()], alpha=-RATE)  # type: ignore[arg-type]


def nothing(model: nn.Module) -> None:
    pass


WAYS: list[Callable[[nn.Module], None]] = [in_place, on_data, new_data, all_at_once]


def recorded(
    folder: Path, update: Callable[[nn.Module], None], every: int = 1, clear: bool = True
) -> tuple[RunRecord, list[float]]:
    model = net()
    losses = []
    with valgap.watch(out=folder / "r", closing=500):
        for _ in range(2):
            model.train()
            for number, (x, y) in enumerate(DataLoader(images(48, 0), 8, shuffle=True)):
                loss = functional.cross_entropy(model(x), y)
                loss.backward()
                if number % every == every - 1:
                    losses.append(loss.item())
                    update(model)
                    if clear:
                        for p in model.parameters():
                            p.grad = None
            model.eval()
            with torch.no_grad():
                for x, _ in DataLoader(images(30, 1), 8):
                    model(x)
    record = read_record(folder / "r")
    assert record.recorder_errors == ()
    return record, losses


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("update", WAYS)
def test_each_own_update_is_a_step(update: Callable[[nn.Module], None], every: int, tmp_path: Path) -> None:
    record, losses = recorded(tmp_path, update, every)
    assert [p.phase for p in record.passes] == ["train", "validation"] * 2
    steps = 6 // every
    assert [(p.optimizer_steps, p.backwards) for p in record.of_phase("train")] == [(steps, 6)] * 2
    assert [o.kind for o in record.optimizers.values()] == ["own update"]
    table = [p.steps for p in record.of_phase("train")]
    assert [v for t in table for v in t.loss.tolist()] == pytest.approx(losses)
    assert {v for t in table for v in t.backwards.tolist()} == {every}
    assert not any((t.stale_gradients == 1).any() for t in table)
    model = record.trained_model
    assert model is not None and model.trained and model.in_optimizer[model.is_parameter].sum() >= 5
    assert record.closing is not None and "val_eval" in record.closing.rescores


def test_gradients_that_are_never_cleared(tmp_path: Path) -> None:
    record, _ = recorded(tmp_path, in_place, clear=False)
    assert [set(p.steps.stale_gradients.tolist()) for p in record.of_phase("train")[1:]] == [{1}]


def test_what_needs_rates_does_not_apply(tmp_path: Path) -> None:
    record, _ = recorded(tmp_path, on_data)
    told = {j.check.code: j.outcome for j in valgap.diagnose(record.path, images=0).judged}
    for code in ("TRN402", "TRN411", "TRN414", "MOD303"):
        if code == "MOD303":
            assert "has moved" in told[code].summary  # type: ignore[union-attr]
        else:
            assert isinstance(told[code], NotApplicable), (code, told[code])


def test_backward_without_any_update_is_no_step(tmp_path: Path) -> None:
    record, _ = recorded(tmp_path, nothing)
    assert [p.optimizer_steps for p in record.of_phase("train")] == [0, 0]
    found = {j.check.code for j in valgap.diagnose(record.path, images=0).findings}
    assert "MOD303" in found


def test_gradients_by_autograd_grad(tmp_path: Path) -> None:
    model = net()
    with valgap.watch(out=tmp_path / "r", closing=0):
        for _ in range(2):
            for x, y in DataLoader(images(48, 0), 8):
                parameters = list(model.parameters())
                slopes = torch.autograd.grad(functional.cross_entropy(model(x), y), iter(parameters))
                with torch.no_grad():
                    for p, slope in zip(parameters, slopes, strict=True):
                        p.sub_(slope, alpha=RATE)
            with torch.no_grad():
                for x, _ in DataLoader(images(30, 1), 8):
                    model(x)
    record = read_record(tmp_path / "r")
    assert record.recorder_errors == ()
    assert [(p.phase, p.optimizer_steps) for p in record.passes] == [("train", 6), ("validation", 0)] * 2


def test_loaded_weights_that_are_others_when_training_begins_are_noted() -> None:
    written: list[tuple[str, dict[str, Any]]] = []
    writer: Any = SimpleNamespace(write=lambda kind, body: written.append((kind, body)))
    states, model = ModelStates(writer), net()
    source = {k: v.clone() for k, v in model.state_dict().items()}
    states.loaded(model, source, True, model.load_state_dict(source), [], -1)
    first, second = list(model.parameters())[:2]
    with torch.no_grad():
        first.mul_(1.5)
        second.mul_(1 + 1e-4)  # as rounding does
    model.append(nn.Linear(3, 3))
    tracked = TrackedModel(0, model)
    states.write_start(tracked)
    assert tracked.altered == {id(first)}
    told = dict(zip([t[0] for t in tracked.tensors], model_facts(tracked)["altered"].tolist(), strict=True))
    names = {id(p): n for n, p in model.named_parameters()}
    assert told[names[id(first)]] == 1 and told[names[id(second)]] == 0
    assert [v for k, v in told.items() if v == -1] == [-1, -1]  # the layer that came later


def test_a_second_step_on_one_gradient_is_no_change_of_the_programs_own(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    with valgap.watch(out=tmp_path / "r", closing=0):
        for x, y in DataLoader(images(80, 0), 2):
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            for x, _ in DataLoader(images(8, 1), 4):
                model(x)
    ratios = read_record(tmp_path / "r").of_phase("train")[0].steps.outside_ratio
    known = ratios[ratios == ratios]
    assert len(known) and not known.any()
