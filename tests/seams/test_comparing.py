"""Labels that nothing shows but the program's own comparison of its answers with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import valgap
from valgap.record.reader import read_record
from valgap.reference import measuring
from valgap.types.record import RunRecord

Evaluate = Callable[[nn.Module, torch.Tensor, torch.Tensor], object]


def _by_slices(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> object:
    return sum(int((net(x[i : i + 12]).argmax(1) == y[i : i + 12]).sum()) for i in range(0, len(x), 12))


def _by_column(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> object:
    answers = net(x).argmax(1, keepdim=True)
    return answers.eq(y.view_as(answers)).float().mean()


def _all_at_once(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> object:
    return (torch.cat([net(part).argmax(1) for part in x.split(12)]) == y).float().mean()


def _by_views_all_at_once(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> object:
    shares = [net(part).softmax(1) + net(part.flip(3)).softmax(1) for part in x.split(12)]
    return (torch.cat(shares).argmax(1) == y).double().mean()


def _by_views_in_slices(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> object:
    slices = [slice(i, i + 12) for i in range(0, len(x), 12)]
    return sum(int(((net(x[s]) + net(x[s].flip(2))).argmax(1) == y[s]).sum()) for s in slices)


def _step(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _recorded(folder: Path, evaluate: Evaluate) -> tuple[RunRecord, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(90, 3, 8, 8, generator=draw), torch.arange(90) % 3
    val_x, val_y = x[60:].clone(), y[60:].clone()
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    with valgap.watch(out=folder, closing=10) as record:
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        for _ in range(2):
            net.train()
            for index in torch.randperm(60, generator=draw).split(20):
                _step(optimizer, nn.functional.cross_entropy(net(x[index]), y[index]))
            net.eval()
            with torch.no_grad():
                evaluate(net, val_x, val_y)
    return read_record(record), val_y


@pytest.mark.parametrize("evaluate", [_by_slices, _by_column, _all_at_once, _by_views_all_at_once, _by_views_in_slices])
def test_labels_are_what_the_answers_are_compared_with(tmp_path: Path, evaluate: Evaluate) -> None:
    run, labels = _recorded(tmp_path / "r", evaluate)
    assert len(run.of_phase("validation")) == 2
    for one in run.of_phase("validation"):
        assert one.samples.target.tolist() == labels.tolist()
        assert (one.samples.loss > 0).all()
    assert run.closing is not None
    again = run.closing.rescores["val_eval"]
    assert sorted(again.target.tolist()) == sorted(labels.tolist()) and (again.loss > 0).all()


def test_two_comparisons_that_differ_show_no_labels(tmp_path: Path) -> None:
    def evaluate(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> object:
        answers = net(x).argmax(1)
        return (answers == y).float().mean(), (answers == (y + 1) % 3).float().mean()

    run, _ = _recorded(tmp_path / "r", evaluate)
    assert [set(p.samples.target.tolist()) for p in run.of_phase("validation")] == [{-1}] * 2


def test_a_comparison_of_something_else_shows_no_labels(tmp_path: Path) -> None:
    def evaluate(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> object:
        net(x)
        return (y == (y + 1) % 3).sum()

    run, _ = _recorded(tmp_path / "r", evaluate)
    assert [set(p.samples.target.tolist()) for p in run.of_phase("validation")] == [{-1}] * 2


def test_the_comparison_is_as_it_was_afterwards(tmp_path: Path) -> None:
    before = {name: name in torch.Tensor.__dict__ for name in ("__eq__", "eq")}
    _recorded(tmp_path / "r", _by_slices)
    assert before == {name: name in torch.Tensor.__dict__ for name in ("__eq__", "eq")}
    assert hash(torch.zeros(1)) and (torch.zeros(2) == torch.zeros(2)).all()


class _Crops(Dataset[tuple[torch.Tensor, int]]):
    """Images of five views each: class c is bright in channel c, some views more than others."""

    def __init__(self, n: int, views: int) -> None:
        draw = torch.Generator().manual_seed(n)
        self.y = torch.arange(n) % 3
        self.x = 0.3 * torch.randn(n, views, 3, 8, 8, generator=draw)
        self.x[torch.arange(n), :, self.y] += 1.0

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        x = self.x[i]
        return (x if len(x) > 1 else x[0]), int(self.y[i])


@pytest.mark.parametrize("sound", [True, False])
def test_views_are_one_image_and_their_answers_may_be_put_together_wrongly(tmp_path: Path, sound: bool) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    train, val = DataLoader(_Crops(60, 1), 20, shuffle=True), DataLoader(_Crops(48, 5), 16)
    with valgap.watch(out=tmp_path / "r", closing=10) as record:
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        for _ in range(2):
            net.train()
            for x, y in train:
                _step(optimizer, nn.functional.cross_entropy(net(x), y))
            net.eval()
            right = 0
            with torch.no_grad():
                for x, y in val:
                    n, views = x.shape[:2]
                    scores = net(x.view(-1, 3, 8, 8)).softmax(1)
                    scores = scores.view(n, views, -1).mean(1) if sound else scores.view(views, n, -1).mean(0)
                    right += int((scores.argmax(1) == y).sum())
            print(f"val acc {right / 48:.4f}")
    run = read_record(record)
    last = run.last_validation
    assert last is not None and last.samples.target.tolist() == [i % 3 for i in range(48)]
    assert last.own is not None and last.own.images == 48 and last.own.right == right
    assert run.closing is not None and "rescores" not in run.closing.skipped
    assert len(run.closing.rescores["val_eval"]) == 48
    found = measuring.compare(run)
    assert found.verdict == ("sound" if sound else "at fault")
    if not sound:
        assert found.points is not None
        assert found.points.value == pytest.approx(100 * (last.samples.accuracy - right / 48))


class _Margin(nn.Module):
    """Scores from which a margin is taken at the label, where one is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Linear(16, 3, bias=False)

    def forward(self, rows: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        scores: torch.Tensor = self.weight(rows)
        return scores if label is None else scores - 20 * nn.functional.one_hot(label, 3)


@pytest.mark.parametrize("sound", [True, False])
def test_a_network_that_is_given_the_labels_of_validation(tmp_path: Path, sound: bool) -> None:
    torch.manual_seed(0)
    neck, margin = nn.Sequential(nn.Flatten(), nn.Linear(192, 16)), _Margin()
    train, val = DataLoader(_Crops(60, 1), 20, shuffle=True), DataLoader(_Crops(48, 1), 16)
    with valgap.watch(out=tmp_path / "r", closing=10) as record:
        optimizer = torch.optim.SGD([*neck.parameters(), *margin.parameters()], 0.1)
        for _ in range(4):
            neck.train()
            for x, y in train:
                _step(optimizer, nn.functional.cross_entropy(margin(neck(x)), y))
            neck.eval()
            with torch.no_grad():
                for x, y in val:
                    nn.functional.cross_entropy(margin(neck(x)) if sound else margin(neck(x), y), y)
    run = read_record(record)
    found = measuring.compare(run)
    assert (found.verdict == "at fault") != sound
    if not sound:
        assert "given the labels" in found.summary and found.points is not None and found.points.value > 10


def test_a_number_in_a_list_stays_a_number(tmp_path: Path) -> None:
    """A hook of indexing would make every tensor a sequence to C, and ``len()`` of a number fails."""
    with valgap.watch(out=tmp_path / "r", closing=0):
        counts = torch.tensor([(torch.arange(3) == torch.tensor([0, 1, 0])).sum(), 3])
    assert counts.tolist() == [2, 3]
