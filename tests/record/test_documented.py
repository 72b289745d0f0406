"""docs/record.md tells of every line and every field that is written."""

from __future__ import annotations

import json
import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import valgap
from valgap import types

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| ((?:`\w+`(?:, )?)+) \| .* \| (.*) \|$")


def documented() -> dict[str, set[str]]:
    """The fields of each kind of line, those of the types named in its row included."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / "docs" / "record.md").read_text().splitlines():
        row = ROW.match(line)
        if row is None:
            continue
        named = set(re.findall(r"`(\w+)`", row.group(2)))
        for name in list(named):
            kind = getattr(types, name, None)
            if is_dataclass(kind):
                named |= {f.name for f in fields(kind)}
        for kind_of_line in re.findall(r"`(\w+)`", row.group(1)):
            found[kind_of_line] = named
    return found


def test_every_kind_of_line_that_the_source_writes_has_its_row() -> None:
    source = "".join(p.read_text() for p in (ROOT / "src" / "valgap").rglob("*.py"))
    written = set(re.findall(r"""(?:\.write|dump_line)\(\s*"(\w+)",""", source))
    assert len(written) > 15
    assert written - set(documented()) == set()


def test_every_field_that_is_written_is_named(tmp_path: Path) -> None:
    images = nn.functional.interpolate(torch.randn(40, 3, 3, 3, generator=torch.Generator().manual_seed(0)), 16, mode="bilinear")
    data = TensorDataset(images[:24], torch.arange(24) % 3), TensorDataset(images[24:], torch.arange(16) % 3)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.1), nn.Flatten(), nn.Linear(784, 3))
    with valgap.watch(out=tmp_path / "r", closing=200) as folder:
        model.load_state_dict(model.state_dict())
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        for _ in range(2):
            model.train()
            for x, y in DataLoader(data[0], 8, shuffle=True):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
            schedule.step()
            model.eval()
            with torch.no_grad():
                for x, _y in DataLoader(data[1], 8):
                    model(x)
            print("acc 0.5")
    known = documented()
    seen, unnamed = set(), {}
    for line in (folder / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        kind = event.pop("t")
        seen.add(kind)
        if set(event) - {"at"} - known[kind]:
            unnamed[kind] = set(event) - {"at"} - known[kind]
    assert unnamed == {}, "\n".join(f"{k} {sorted(v)}" for k, v in unnamed.items())
    assert seen >= {"header", "dataset", "loader", "optimizer", "model", "pass_end", "state", "rescore", "closing_end", "printed"}


@pytest.mark.parametrize("name", ["final", "best"])
def test_the_weights_files_are_named(name: str) -> None:
    assert f"`{name}.safetensors`" in (ROOT / "docs" / "record.md").read_text()
