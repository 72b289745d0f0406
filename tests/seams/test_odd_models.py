"""Networks with tensors that cannot be read, layers that compute their weights, inputs of few bits: recorded, and left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

import valgap
from tests.seams.test_models_seen import CLASSES, body, images, net
from valgap.record.reader import read_record


class With(nn.Module):
    """The network beside something else."""

    def __init__(self, **more: nn.Module | torch.Tensor) -> None:
        super().__init__()
        self.net = net()
        for name, one in more.items():
            if isinstance(one, nn.Module):
                self.add_module(name, one)
            else:
                self.register_buffer(name, one)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.net(x)
        return out


def spectral() -> nn.Module:
    """Its weight is computed when it is asked for, and each time in train mode its own vectors move on."""
    return nn.Sequential(body(), nn.Flatten(), nn.utils.parametrizations.spectral_norm(nn.Linear(6, CLASSES)))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "spectral norm": spectral,
    "weight norm": lambda: nn.Sequential(body(), nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(6, CLASSES))),
    "on meta": lambda: With(unused=nn.Linear(3, 3, device="meta")),
    "quantised": lambda: With(table=torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)),
    "sparse": lambda: With(table=torch.eye(3).to_sparse()),
    "bfloat16": lambda: net().bfloat16(),
}


def run(make: Callable[[], nn.Module], out: Path | None) -> tuple[list[torch.Tensor], float]:
    """(all tensors at the end, validation accuracy) of one epoch, recorded or not."""
    torch.manual_seed(0)
    model = make()
    kind = next(p.dtype for p in model.parameters())
    optimizer = torch.optim.SGD([p for p in model.parameters() if not p.is_meta], 0.1)

    def train() -> float:
        model.train()
        for x, y in DataLoader(images(48, 0), 8, shuffle=True):
            optimizer.zero_grad()
            functional.cross_entropy(model(x.to(kind)).float(), y).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            return sum(int((model(x.to(kind)).argmax(1) == y).sum()) for x, y in DataLoader(images(30, 1), 8)) / 30

    if out is None:
        accuracy = train()
    else:
        with valgap.watch(out=out, closing=30):
            accuracy = train()
    return [t.detach().clone() for t in model.state_dict().values() if not t.is_meta], accuracy


@pytest.mark.parametrize("name", MODELS)
def test_they_are_recorded_and_end_as_they_do_without(name: str, tmp_path: Path) -> None:
    bare, accuracy = run(MODELS[name], None)
    recorded, again = run(MODELS[name], tmp_path / "r")
    assert accuracy == again and len(bare) == len(recorded)
    assert all(
        torch.equal(a.to_dense() if a.is_sparse else a, b.to_dense() if b.is_sparse else b)
        for a, b in zip(bare, recorded, strict=True)
    )
    record = read_record(tmp_path / "r")
    assert record.recorder_errors == () and record.closing is not None
    assert "rescores" not in record.closing.skipped and "weights" not in record.closing.skipped, record.closing.skipped
    assert record.closing.rescores["val_eval"].accuracy == pytest.approx(accuracy)
