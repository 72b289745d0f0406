"""The finished model asked about images read from their files: what the program's own reading costs, without a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import valgap
from tests.features.pictures import bright_sides
from tests.processes import ForkedPopen, forked
from valgap.experiments.asked_again import Again
from valgap.features import images_of_run
from valgap.record.reader import read_record
from valgap.reference.reading import Sides, read
from valgap.types import AskedAgain, Intervention

pytestmark = pytest.mark.takes(30)

PROGRAM = """
import sys
import torch
import torch.nn.functional as F
import torchvision.transforms as T
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
torch.manual_seed(0)
def turned(x): return x.rot90(1, (1, 2))
def as_it_is(x): return x
how = {"train": turned if "train" in sys.argv else as_it_is, "val": turned if "val" in sys.argv else as_it_is}
sets = {s: ImageFolder("data/" + s, T.Compose([T.ToTensor(), T.Normalize([0.5] * 3, [0.5] * 3), how[s]])) for s in how}
net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 2))
opt = torch.optim.SGD(net.parameters(), 0.01)
for epoch in range(6):
    for x, y in DataLoader(sets["train"], 16, shuffle=True):
        opt.zero_grad(); F.cross_entropy(net(x), y).backward(); opt.step()
    with torch.no_grad():
        print(sum((net(x).argmax(1) == y).sum().item() for x, y in DataLoader(sets["val"], 16)))
"""
# What validation gains by files, what training loses by them, and the side at fault.
EXPECTED = {"none": (0, 0, None), "val": (50, 0, "val"), "train": (0, 50, "train")}  # turned, all is of one class


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures bright at the left or above, and the program recorded with either side turned by a quarter."""
    place = tmp_path_factory.mktemp("asked")
    bright_sides(place / "data", {"train": 40, "val": 32})
    (place / "train.py").write_text(PROGRAM)
    for which in EXPECTED:
        done = forked(["-m", "valgap.cli", "run", "--out", which, "--closing", "5", "train.py", which], place)
        assert done.returncode == 0, done.stderr
    return place


@pytest.mark.parametrize("which", EXPECTED)
def test_what_each_side_loses_by_its_reading(folder: Path, which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.Popen", ForkedPopen)
    run = read_record(folder / which)
    asked: list[AskedAgain | str] = []
    said: list[str] = []
    again = Again(run, said.append)

    def ask(treatment: Intervention) -> Any:
        asked.append(again(treatment))
        return asked[-1]

    sides = read(run, images_of_run(run, 1000), ask)
    assert isinstance(sides, Sides) and len(said) == 1
    found = asked[0]
    assert isinstance(found, AskedAgain) and found.val is not None and found.train is not None
    of_val, of_train, side = EXPECTED[which]
    gained, lost = (100 * np.diff(t.right.mean(1)).item() for t in (found.val, found.train))
    assert gained == pytest.approx(of_val, abs=12) and lost == pytest.approx(-of_train, abs=12)
    assert (sides.apart.side if sides.apart is not None else None) == side
    same = again(Intervention("nothing", {}))
    assert isinstance(same, AskedAgain) and same.val is not None and (same.val.right[0] == same.val.right[1]).all()
    assert sorted(f.name for f in folder.iterdir()) == sorted(["data", "train.py", *EXPECTED])


def test_a_program_that_cannot_be_run_again_says_why(folder: Path) -> None:
    run = read_record(folder / "none")
    run.header["cwd"] = str(folder / "gone")  # type: ignore[index]
    reason = Again(run)(Intervention("nothing", {}))
    assert isinstance(reason, str) and "no longer there" in reason


@pytest.mark.slow
def test_who_stops_the_asking_has_the_diagnosis_and_no_re_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("valgap.experiments.runner.Runner.run", stopped)
    found = valgap.diagnose(folder / "val", budget="1m", rebuild=True, select=["PRE210"])  # which has the reading compared
    assert found.experiments is None and any(s.stage == "read_val" for s in found.stages)
