"""Programs that make features of their images once, and train or validate a head on these."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import valgap
from valgap.record.reader import read_record

CLASSES, WIDTH = 3, 40


def images(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose colour is their class."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % CLASSES
    return torch.eye(3)[labels][:, :, None, None] + 0.4 * torch.randn(n, 3, 8, 8, generator=draw), labels


@pytest.mark.parametrize("both", [False, True])
def test_the_head_is_what_is_trained_and_validated(tmp_path: Path, both: bool) -> None:
    torch.manual_seed(0)
    (train, own), (val, theirs) = images(48, 0), images(30, 1)
    body = nn.Sequential(nn.Conv2d(3, WIDTH, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).requires_grad_(False)
    head = nn.Linear(WIDTH, CLASSES)
    optimizer = torch.optim.SGD(head.parameters(), 0.5)
    with valgap.watch(out=tmp_path / "r", closing=30):
        with torch.no_grad():
            kept = torch.cat([body(x) for x, _ in DataLoader(TensorDataset(val, theirs), 10)])
            learnt = torch.cat([body(x) for x in train.split(16)]) if both else None
        for _ in range(3):
            head.train()
            for rows in torch.randperm(48).split(8):
                features = learnt[rows] if learnt is not None else body(train[rows])
                optimizer.zero_grad()
                nn.functional.cross_entropy(head(features), own[rows]).backward()
                optimizer.step()
            head.eval()
            with torch.no_grad():
                answers = head(kept)
                nn.functional.cross_entropy(answers, theirs)
    run = read_record(tmp_path / "r")
    assert not run.recorder_errors
    assert len(run.of_phase("train")) == len(run.of_phase("validation")) == 3
    last = run.last_validation
    assert last is not None and len(last.samples) == 30
    assert last.samples.accuracy == pytest.approx(float((answers.argmax(1) == theirs).float().mean()))
    assert all(len(p.samples) == 48 and p.optimizer_steps == 6 for p in run.of_phase("train"))


def test_a_head_that_is_asked_about_something_else_within_an_epoch_makes_no_pass(tmp_path: Path) -> None:
    torch.manual_seed(0)
    train, val = (DataLoader(TensorDataset(*images(n, s)), 8) for n, s in ((48, 0), (32, 1)))
    body = nn.Sequential(nn.Conv2d(3, WIDTH, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    head, prototypes = nn.Linear(WIDTH, CLASSES), torch.randn(5, WIDTH)
    optimizer = torch.optim.SGD([*body.parameters(), *head.parameters()], 0.1)
    with valgap.watch(out=tmp_path / "r", closing=0):
        for x, y in train:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(head(body(x)), y)
            with torch.no_grad():
                head(prototypes)
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            for x, _ in val:
                head(body(x))
    run = read_record(tmp_path / "r")
    assert [(p.phase, len(p.samples), p.optimizer_steps) for p in run.passes] == [("train", 48, 6), ("validation", 32, 0)]


def test_a_loss_on_all_answers_at_once_tells_the_labels(tmp_path: Path) -> None:
    torch.manual_seed(0)
    (train, own), (val, theirs) = images(48, 0), images(30, 1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, CLASSES))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with valgap.watch(out=tmp_path / "r", closing=0):
        for _ in range(2):
            for rows in torch.randperm(48).split(8):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(train[rows]), own[rows]).backward()
                optimizer.step()
            with torch.no_grad():
                answers = torch.cat([model(x) for x in val.split(8)])
                nn.functional.nll_loss(answers.log_softmax(1), theirs)
                nn.functional.cross_entropy(torch.randn(30, CLASSES), theirs.flip(0))  # of something else
    last = read_record(tmp_path / "r").last_validation
    assert last is not None and last.samples.target.tolist() == theirs.tolist()
    assert last.samples.accuracy == pytest.approx(float((answers.argmax(1) == theirs).float().mean()))


@pytest.mark.parametrize("kind", ["over the classes", "over the batch", "squares"])
def test_targets_of_a_loss_of_the_programs_own_are_what_it_pulls_up(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    (train, own), (val, theirs) = images(48, 0), images(30, 1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, CLASSES))
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    numbers = torch.randn(48, CLASSES)
    drawn = []
    with valgap.watch(out=tmp_path / "r", closing=0):
        for rows in torch.randperm(48).split(8):
            drawn.append(own[rows])
            optimizer.zero_grad()
            logits = model(train[rows])
            hot = torch.eye(CLASSES)[own[rows]] * 0.9 + 0.1 / CLASSES
            loss = -(hot * logits.log_softmax(1 if kind == "over the classes" else 0)).sum(1).mean()
            (loss if kind != "squares" else (logits - numbers[rows]).square().mean()).backward()
            optimizer.step()
        with torch.no_grad():
            nn.functional.cross_entropy(model(val), theirs)
    last = read_record(tmp_path / "r").last_train
    assert last is not None
    told = last.samples.target
    if kind == "squares":
        assert (told == -1).all()  # no classes are learnt
        return
    assert (told == torch.cat(drawn).numpy())[told >= 0].mean() > 0.95 and (told >= 0).mean() > 0.8
    assert last.gradient is not None and last.gradient.over_batch == float(kind == "over the batch")
