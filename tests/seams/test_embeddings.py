"""Training that compares embeddings: what the model gives is no score of a class."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import valgap
from valgap.record.reader import read_record


def test_episodes_over_prototypes_are_not_scored_by_the_embedding(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    y = torch.arange(24) % 3
    x = torch.randn(24, 3, 8, 8, generator=draw)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 16))
    with valgap.watch(out=tmp_path / "r", closing=10) as folder:
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        for _ in range(2):
            model.train()
            for images, target in DataLoader(TensorDataset(x, y), 12):
                z = model(images)
                prototypes = torch.stack([z[:6][target[:6] == k].mean(0) for k in range(3)])
                optimizer.zero_grad()
                nn.functional.cross_entropy(-torch.cdist(z[6:], prototypes), target[6:]).backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                for images, _ in DataLoader(TensorDataset(x, y), 24):
                    model(images)
    run = read_record(folder)
    assert all(p.gradient is None and (p.samples.prediction == -1).all() for p in run.passes)
    assert run.closing is not None and "no score of a class" in run.closing.skipped["rescores"]


def test_a_loss_of_the_models_own_rows_is_one_of_scores(tmp_path: Path) -> None:
    x, y = torch.randn(24, 3, 8, 8), torch.arange(24) % 3
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    with valgap.watch(out=tmp_path / "r", closing=0) as folder:
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        for images, target in DataLoader(TensorDataset(x, y), 12):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), target).backward()
            optimizer.step()
    assert read_record(folder).passes[0].gradient is not None
