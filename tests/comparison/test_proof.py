"""Pieces of one program are put into another: which make the difference, by the whole command line with re-runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.processes import forked
from valgap.comparison.pieces import parts_of
from valgap.comparison.source import source_differences
from valgap.record.reader import read_record
from valgap.types import RunRecord, SourceFile

GOOD = '''"""A small training on tensors."""
import argparse
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from helper import scaled

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=2)
args = parser.parse_args()
torch.manual_seed(0)
targets = torch.arange(360) % 3
images = targets[:, None, None, None] * 0.5 + torch.randn(360, 3, 8, 8)
train, val = (TensorDataset(scaled(images[s]), targets[s]) for s in (slice(0, 120), slice(120, 360)))
model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
optimizer = torch.optim.SGD(model.parameters(), 0.2)
for _ in range(args.epochs):
    model.train()
    for x, y in DataLoader(train, 8, shuffle=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        for x, y in DataLoader(val, 80):
            model(x)
'''
HELPER = "def scaled(images):\n    return images\n"


def run(folder: Path, text: str, *arguments: str, helper: str = HELPER) -> RunRecord:
    folder.mkdir()
    (folder / "train.py").write_text(text)
    (folder / "helper.py").write_text(helper)
    done = forked(["-m", "valgap.cli", "run", "--closing", "0", "--out", "run", "train.py", *arguments], folder)
    assert done.returncode == 0, done.stderr
    return read_record(folder / "run")


@pytest.mark.slow
def test_what_makes_the_difference_is_found_among_what_makes_none(tmp_path: Path) -> None:
    good = run(tmp_path / "good", GOOD)
    text = GOOD.replace("model.eval()", "pass").replace("small training", "little training")
    run(tmp_path / "bad", text.replace("DataLoader(val, 80)", "DataLoader(val, 80, shuffle=False)"))
    assert [s.path for s in good.sources] == ["train.py", "helper.py"]
    command = ["-m", "tests.experiments.forked_arms", "compare", "good/run", "bad/run", "--json"]
    done = forked([*command, "--budget", "4m"], tmp_path)
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert told["verdict"] == "parted" and told["headline"]["quantity"] == "val mode"
    proofs = {p["name"]: p for p in told["proofs"]}
    mode = next(p for n, p in proofs.items() if "model.eval()" in n)
    other = next(p for n, p in proofs.items() if "DataLoader(val, 80)" in n)
    assert mode["seeds"] >= 3 and "nothing of substance is left" in mode["text"]
    assert other["gain"]["value"] == 0 and other["verdict"] == "makes none"
    assert mode["gain"]["value"] == proofs["the whole of the first program"]["gain"]["value"] != 0
    assert (tmp_path / "bad" / "train.py").read_text().count("pass") == 1  # the user's file is as it was
    same = forked(["-m", "valgap.cli", "compare", "good/run", "good/run"], tmp_path)
    assert same.returncode == 0 and same.stdout.startswith("Verdict  equal")


def test_parts_are_programs_by_themselves() -> None:
    good = "def f():\n    a = 1\n    b = 2\n    return a\n# one\nx = f()\n"
    bad = "def f():\n    a = 5\n    b = 2\n    return a\n# two\nx = f(\n)\ny = 3\n"
    parts = parts_of(good, bad)
    assert [name for name, _ in parts] == ["line 2: a = 1", "lines 5 to 8: x = f()"]
    assert parts[0][1] == bad.replace("a = 5", "a = 1")
    assert parts_of(good, good.replace("# one", "# another")) == []
    many = "".join(f"v{i} = {i}\nw{i} = 0\n" for i in range(20))
    assert len(parts_of(many, many.replace("v", "u"))) == 8


def test_sources_are_compared_by_path_and_layout_is_no_difference(tmp_path: Path) -> None:
    def record(*files: SourceFile) -> RunRecord:
        empty = RunRecord.empty(str(tmp_path))
        object.__setattr__(empty, "sources", files)
        return empty

    first = record(SourceFile("a.py", "1", "x = 1\n", True), SourceFile("h.py", "2", "y = 1\n"))
    second = record(
        SourceFile("b.py", "3", "# new\nx = 1\n", True), SourceFile("h.py", "4", "y = 2\n"), SourceFile("n.py", "5", None)
    )
    told = source_differences(first, second)
    assert [(d.path, d.inessential) for d in told] == [("a.py -> b.py", True), ("h.py", False), ("n.py", False)]
    assert "-y = 1" in told[1].lines and "+y = 2" in told[1].lines and told[2].lines == ()
    assert source_differences(first, first) == ()
