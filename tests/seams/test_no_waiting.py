"""No step waits for the device: what the recorder takes stays there until the pass is written."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import valgap
from valgap.record.reader import read_record

READS = ("cpu", "item", "tolist", "numpy", "nonzero", "__bool__", "__float__", "__int__", "__index__", "__array__")


class Pictures(Dataset[dict[str, torch.Tensor]]):
    """Two integer columns, so that the recorder has to find out which one is the label."""

    def __len__(self) -> int:
        return 80

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        return {"x": torch.full((3, 16, 16), i / 80), "id": torch.tensor(i), "label": torch.tensor(i % 3)}


@pytest.mark.parametrize("soft", [False, True])
def test_nothing_waits_for_the_device_during_steps(soft: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def watched(name: str) -> Any:
        original = getattr(torch.Tensor, name)

        def read(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            frame = sys._getframe(1)
            if "seams" in Path(frame.f_code.co_filename).parts:
                seen.append(f"{name} in {frame.f_code.co_name}")
            return original(tensor, *args, **kwargs)

        return read

    for name in READS:
        monkeypatch.setattr(torch.Tensor, name, watched(name))
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    loader = DataLoader(Pictures(), 4)
    with valgap.watch(out=tmp_path / "r", closing=0):
        for _ in range(2):
            for number, batch in enumerate(loader):
                if number == 5:
                    seen.clear()  # which column is the label, and of what kind, is settled in the first batches of a pass
                optimizer.zero_grad()
                target = nn.functional.one_hot(batch["label"], 3) * 0.8 + 0.1 if soft else batch["label"]
                nn.functional.cross_entropy(model(batch["x"]), target).backward()
                optimizer.step()
                if number >= 5:
                    assert seen == []
            model.eval()
            with torch.no_grad():
                for batch in DataLoader(Pictures(), 20):
                    model(batch["x"])
            model.train()
        assert seen  # the passes were written
    record = read_record(tmp_path / "r")
    assert record.recorder_errors == ()
    assert [len(p.samples) for p in record.passes] == [80] * 4
    assert record.passes[-1].samples.target.tolist() == [i % 3 for i in range(80)]
    model_info = record.trained_model
    assert model_info is not None
    assert model_info.got_gradient[model_info.is_parameter].sum() >= 5  # a convolution's bias before BatchNorm gets none
