"""Programs without a loader: their last passes are held, so that the finished model can be asked about them once more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.processes import forked
from valgap.record.reader import read_record

pytestmark = pytest.mark.takes(8)

PROGRAM = """
import torch
import torch.nn.functional as F
from torch import nn
torch.manual_seed(0)
y = torch.arange(120) % 3
x = F.interpolate(torch.eye(3)[y][:, :, None, None], 8) + torch.randn(120, 3, 8, 8)
x, y, vx, vy = x[:80], y[:80], x[80:], y[80:]
net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
opt = torch.optim.SGD(net.parameters(), 0.1)
for epoch in range(3):
    net.train()
    order = torch.randperm(80)
    for i in range(0, 80, 16):
        batch = x[order[i : i + 16]]
        #changed
        opt.zero_grad(); F.cross_entropy(net(batch), y[order[i : i + 16]]).backward(); opt.step()
    net.eval()
    with torch.no_grad():
        print(sum(VALIDATED for i in range(0, 40, 10)))
"""
LOSS = "F.cross_entropy(net(vx[i : i + 10]), vy[i : i + 10]).item()"


@pytest.mark.parametrize("changed", ["pass", "batch = batch + 0.1 * torch.randn_like(batch)"], ids=["plain", "augmented"])
def test_the_last_passes_are_read_again(changed: str, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(PROGRAM.replace("#changed", changed).replace("VALIDATED", LOSS))
    done = forked(["-m", "valgap.cli", "run", "--out", "r", "--closing", "10", "train.py"], tmp_path)
    assert done.returncode == 0, done.stderr
    run = read_record(tmp_path / "r")
    assert not run.recorder_errors
    closing, last = run.closing, run.last_validation
    assert closing is not None and last is not None
    again = closing.rescores["val_eval"]
    before = dict(zip(last.samples.sample.tolist(), last.samples.loss.tolist(), strict=True))
    assert len(again) == 40
    np.testing.assert_allclose(again.loss, [before[s] for s in again.sample.tolist()], rtol=1e-4, atol=1e-5)
    assert len(closing.rescores["train_eval"]) == 80 and closing.numbers["probe_train_n"] == 80
    assert ("train_augmented" in closing.rescores) == (changed != "pass")  # as they lie in memory, and as they were given


def test_nothing_is_said_of_images_without_labels(tmp_path: Path) -> None:
    unlabelled = "(net(vx[i : i + 10]).argmax(1).numpy() == vy[i : i + 10].numpy()).sum()"
    (tmp_path / "train.py").write_text(PROGRAM.replace("VALIDATED", unlabelled))
    done = forked(["-m", "valgap.cli", "run", "--out", "r", "--closing", "10", "train.py"], tmp_path)
    assert done.returncode == 0, done.stderr
    closing = read_record(tmp_path / "r").closing
    assert closing is not None
    assert not {"probe_final", "replay_recorded", "probe_start"} & set(closing.numbers)
