"""`valgap preflight`: exit status, what it says and does not say, its projection, and what is left on the disk."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.checks.cases import healthy
from tests.features.pictures import bright_sides
from tests.processes import forked
from valgap.checks import CATALOGUE
from valgap.diagnosis import judge
from valgap.preflight import projected
from valgap.record.reader import read_record
from valgap.types import Case, Finding, NotApplicable, Shortened

pytestmark = pytest.mark.takes(50)
PROGRAM = """
import sys
import torch
import torch.nn.functional as F
import torchvision.transforms as T
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
torch.manual_seed(0)
how = sys.argv[1] if len(sys.argv) > 1 else ""
plain = T.Compose([T.ToTensor(), T.Normalize([0.5] * 3, [0.5] * 3)])
sets = {s: ImageFolder("data/" + s, plain) for s in ("train", "val")}
net = nn.Sequential(nn.Conv2d(3, 8, 5, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 25, 2))
opt = torch.optim.SGD(net.parameters(), 0.02)
for epoch in range(40):
    net.train()
    for x, y in DataLoader(sets["train"], 8, shuffle=how != "sorted"):
        opt.zero_grad()
        F.cross_entropy(net(x), y).backward()
        opt.step()
    if how != "no_eval":
        net.eval()
    with torch.no_grad():
        right = sum((net(x).argmax(1) == y).sum().item() for x, y in DataLoader(sets["val"], 16))
    print(f"epoch {epoch} val acc {right / len(sets['val']):.4f}")
    if how == "fails":
        best = {}["acc"]
    torch.save({"net": net.state_dict(), "filler": torch.zeros(50_000)}, f"net_{epoch}.pt")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures bright at the left or above: more than a preflight takes."""
    place = tmp_path_factory.mktemp("preflight")
    bright_sides(place / "data", {"train": 60, "val": 40})
    (place / "train.py").write_text(PROGRAM)
    return place


def test_what_rests_on_a_whole_training_is_never_suspected() -> None:
    case = healthy()
    cut = Case(replace(case.run, shortened=Shortened(32, 512, 60.0)))

    def boast(case: Case) -> Finding:
        return Finding("all is wrong", 50.0, 0.99, (), "mend it")

    checks = [replace(c, detect=boast) for c in CATALOGUE]
    assert all(isinstance(j.outcome, Finding) for j in judge(case, checks))
    for judged in judge(cut, checks):
        assert isinstance(judged.outcome, NotApplicable if judged.check.needs_whole_run else Finding)


def preflight(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return forked(["-m", "valgap.cli", "preflight", "--steps", "10", "--images", "64", *arguments], folder)


def test_a_sound_script_passes_and_is_projected(folder: Path) -> None:
    before = sorted(f.name for f in folder.iterdir())
    done = preflight(folder, "--json", "--out", "sound", "train.py")
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert said["schema"] == 1
    assert [f for f in said["findings"] if f["confidence"] >= 0.5] == []
    one = said["preflight"]
    assert one["exit_status"] == 0 and one["script"]["ended_by"] == "epoch" and one["script"]["error"] is None
    assert {u["code"] for u in one["untold"]} == {c.code for c in CATALOGUE if c.needs_whole_run}
    assert {u["code"] for u in one["untold"]} >= {"TRN402", "TRN403", "TRN404", "TRN414", "TRN420", "EVA506", "STG608"}
    projection = one["projected"]
    assert projection["epochs"] == 40 and projection["steps_per_epoch"] == 15
    assert projection["seconds"] == pytest.approx(one["start_seconds"] + 40 * projection["seconds_per_epoch"])
    assert projection["disk_each_epoch"] and projection["disk_bytes"] > 40 * 200_000
    assert projection["free_bytes"] > 0 and projection["memory_bytes"] > 0
    assert sorted(f.name for f in folder.iterdir()) == sorted([*before, "sound"])
    # The record says itself that it is none of a whole training.
    again = forked(["-m", "valgap.cli", "diagnose", "sound", "--budget", "1m", "--select", "EVA501", "--json"], folder)
    assert again.returncode == 0 and json.loads(again.stdout)["experiments"] is None
    assert projected(read_record(folder / "sound")).epochs_from == "the loop over epochs"


def test_a_fault_is_told_with_its_line(folder: Path) -> None:
    done = preflight(folder, "--no-keep", "--out", "faulty", "train.py", "no_eval")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "EVA501" in done.stdout and "Not told by so short a run" in done.stdout
    assert not (folder / "faulty").exists()


def test_a_script_that_fails_is_told_with_its_line(folder: Path) -> None:
    done = preflight(folder, "--out", "fails", "train.py", "fails")
    assert done.returncode == 4, done.stdout + done.stderr
    line = next(i for i, text in enumerate(PROGRAM.splitlines(), 1) if '{}["acc"]' in text)
    assert f"train.py:{line}" in done.stdout and "KeyError" in done.stdout
    assert read_record(folder / "fails").exit_status == 1


def test_what_never_trains_is_no_success(folder: Path) -> None:
    (folder / "idle.py").write_text("import torch\nprint(torch.ones(1))\n")
    done = preflight(folder, "--out", "idle", "idle.py")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Nothing is judged" in done.stdout


WRONG = ((), ("--budget", "0", "train.py"), ("nowhere.py",), ("--budget", "soon", "train.py"), ("--out", "data", "train.py"))


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_use_is_one_line(folder: Path, arguments: tuple[str, ...]) -> None:
    done = preflight(folder, *arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert (folder / "data" / "train").is_dir()


def test_ctrl_c_leaves_a_record(folder: Path) -> None:
    slow = PROGRAM.replace("        opt.step()\n", "        opt.step()\n        __import__('time').sleep(1)\n")
    (folder / "slow.py").write_text(slow)
    command = [sys.executable, "-m", "valgap", "preflight", "--out", "stopped", "slow.py"]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    events = folder / "stopped" / "events.jsonl"
    while time.monotonic() < end and not (events.is_file() and '"pass_begin"' in events.read_text()):
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "recorded in stopped" in errors
    run = read_record(folder / "stopped")
    assert run.stopped is None and run.exit_status == 130 and run.passes[0].num_batches >= 1
