"""Rows of features that no loader gives: a pass over the training rows and one over the others, one right after the other."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

import valgap
from valgap.record.reader import read_record


def test_scored_training_rows_and_validation_rows_are_two_passes(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    rows, y = torch.randn(90, 16, generator=draw), torch.arange(90) % 3
    train, val = (rows[:60].clone(), y[:60]), (rows[60:].clone(), y[60:])
    torch.manual_seed(0)
    head = nn.Linear(16, 3)
    pictures = nn.Sequential(nn.Flatten(), nn.Linear(192, 16))
    with valgap.watch(out=tmp_path / "r", closing=10) as folder:
        with torch.no_grad():
            pictures(torch.randn(90, 3, 8, 8, generator=draw))  # images are known: rows are features that were made of them
        optimizer = torch.optim.SGD(head.parameters(), 0.1)
        for _ in range(3):
            for index in torch.randperm(60, generator=draw).split(20):
                loss = nn.functional.cross_entropy(head(train[0][index]), train[1][index])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            with torch.no_grad():
                for x, target in (train, val):
                    nn.functional.cross_entropy(head(x), target)
    run = read_record(folder)
    assert [len(p.samples) for p in run.of_phase("validation")] == [30] * 3
    assert run.closing is not None and len(run.closing.rescores["val_eval"]) == 30
    last = run.last_validation
    assert last is not None and last.index == run.passes[-1].index


def test_training_on_images_and_validation_on_features_made_once(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(90, 3, 8, 8, generator=draw), torch.arange(90) % 3
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 16)).requires_grad_(False)
    head = nn.Linear(16, 3)
    with valgap.watch(out=tmp_path / "r", closing=10) as folder:
        rows = body(x[60:])
        optimizer = torch.optim.SGD(head.parameters(), 0.1)
        for _ in range(3):
            for index in torch.randperm(60, generator=draw).split(20):
                loss = nn.functional.cross_entropy(head(body(x[:60][index])), y[:60][index])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            with torch.no_grad():
                nn.functional.cross_entropy(head(rows), y[60:])
    closing = read_record(folder).closing
    assert closing is not None and "rescores" not in closing.skipped
    assert len(closing.rescores["val_eval"]) == 30 and "features" in closing.skipped["train_eval"]
