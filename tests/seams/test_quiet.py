"""What valgap computes never warns the program, and never raises in it, whatever the program feeds its model."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import valgap
from valgap.record.reader import read_record

IMAGES = torch.rand(24, 3, 12, 12, generator=torch.Generator().manual_seed(0))
ODD: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "huge": lambda x: (x - 0.5) * 6e38,
    "large": lambda x: x * 3e30,
    "tiny": lambda x: x * 1e-40,
    "infinite": lambda x: x.masked_fill(x > 0.9, float("inf")).masked_fill(x < 0.1, float("-inf")),
    "not a number": lambda x: x.masked_fill(x > 0.5, float("nan")),
    "constant": lambda x: x * 0,
    "half": lambda x: (x * 60_000).half(),
    "bytes": lambda x: (x * 255).byte(),
    "double": lambda x: x.double() * 1e300,
    "one pixel": lambda x: x[:, :, :1, :1],
}


class Odd(nn.Module):
    """Takes anything; answers are as odd as what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.float().mean((2, 3))) * x.float().flatten(1).amax(1, keepdim=True)


@pytest.mark.parametrize("kind", ODD)
def test_odd_images(kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    images, labels = ODD[kind](IMAGES), torch.arange(24) % 3
    net = Odd()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    before = np.seterr(all="raise")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with valgap.watch(out=tmp_path / "run", closing=200):
                for _ in range(2):
                    for x, y in DataLoader(TensorDataset(images[:16], labels[:16]), 8, shuffle=True):
                        optimizer.zero_grad()
                        functional.cross_entropy(net.train()(x), y).backward()
                        optimizer.step()
                    with torch.no_grad():
                        for x, y in DataLoader(TensorDataset(images[16:], labels[16:]), 4):
                            functional.cross_entropy(net.eval()(x), y)
    finally:
        np.seterr(**before)
    record = read_record(tmp_path / "run")
    assert record.recorder_errors == ()
    assert "Warning" not in capfd.readouterr().err
    assert record.closing is not None
    faults = {name: why for name, why in record.closing.skipped.items() if "Warning" in why or "FloatingPoint" in why}
    assert faults == {}
