"""A program's end: nothing of ours lives on, and what the program drops is not held."""

from __future__ import annotations

import gc
import multiprocessing
import weakref
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

import valgap
from tests.ranks import program


def test_loaders_that_a_program_drops_take_their_workers_with_them(tmp_path: Path) -> None:
    train, val = program.data()
    model = program.network()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    dropped = []
    with valgap.watch(out=tmp_path / "r", closing=200):
        for _ in range(2):
            for data, learns in ((train, True), (val, False)):
                loader = DataLoader(data, 8, num_workers=1, persistent_workers=True)
                for images, targets in loader:
                    with torch.set_grad_enabled(learns):
                        loss = nn.functional.cross_entropy(model.train(learns)(images), targets)
                    if learns:
                        optimizer.zero_grad()
                        loss.backward()
                        optimizer.step()
                dropped.append(weakref.ref(loader))
                del loader
        gc.collect()
        assert [r() for r in dropped] == [None] * 4
        assert multiprocessing.active_children() == []
    assert multiprocessing.active_children() == []  # those of the closing measurements
    closing = valgap.diagnose(tmp_path / "r", images=0).run.closing
    assert closing is not None and "val_eval" in closing.rescores
