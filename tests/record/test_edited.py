"""A record that somebody edited, by hand or in bad faith: it is read, or refused in words, and nothing else."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import valgap
from valgap.errors import RecordError, ValgapError
from valgap.record.reader import read_record
from valgap.report.as_json import diagnosis_to_json

BAD: tuple[Any, ...] = (None, -1, 1e308, 10**30, "<script>alert(1)</script>", "../../etc/passwd", [], [[1]], {}, {"a": 1}, True)
EDITS = 80


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The lines of a sound record of a small program."""
    draw = torch.Generator().manual_seed(0)
    data = [TensorDataset(torch.randn(n, 3, 8, 8, generator=draw), torch.arange(n) % 3) for n in (24, 15)]
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with valgap.watch(out=tmp_path_factory.mktemp("edited") / "r", closing=5) as folder:
        for _ in range(2):
            model.train()
            for x, y in DataLoader(data[0], 8, shuffle=True):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                for x, y in DataLoader(data[1], 8):
                    nn.functional.cross_entropy(model(x), y)
    return (Path(folder) / "events.jsonl").read_text().splitlines()


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every field, and to the first elements of lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*above, key)
        yield from places(inner, (*above, key))


def edited(lines: list[str], draw: random.Random) -> str:
    """The record with one field gone or of another kind."""
    number = draw.randrange(len(lines))
    line = json.loads(lines[number])
    *above, last = draw.choice(list(places(line)))
    holder = line
    for key in above:
        holder = holder[key]
    if isinstance(holder, dict) and draw.random() < 0.2:
        del holder[last]
    else:
        holder[last] = draw.choice(BAD)
    return "\n".join([*lines[:number], json.dumps(line), *lines[number + 1 :]]) + "\n"


def test_an_edited_record_is_read_or_refused(lines: list[str], tmp_path: Path) -> None:
    draw = random.Random(0)
    refused = 0
    for _ in range(EDITS):
        text = edited(lines, draw)
        (tmp_path / "events.jsonl").write_text(text)
        try:
            json.dumps(diagnosis_to_json(valgap.diagnose(tmp_path, images=0)))
        except ValgapError:
            refused += 1
    assert 0 < refused < EDITS


def test_samples_beyond_the_names_are_refused(lines: list[str], tmp_path: Path) -> None:
    names = [line for line in lines if json.loads(line)["t"] == "names"]
    without = [line for line in lines if line != names[-1]]
    assert len(without) < len(lines)
    (tmp_path / "events.jsonl").write_text("\n".join(without) + "\n")
    with pytest.raises(RecordError, match=r"has the sample \d+, and \d+ samples have names"):
        read_record(tmp_path)
