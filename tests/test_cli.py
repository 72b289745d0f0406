"""Bad use of the command line: one clear line and exit status 2; the script's own status otherwise."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.processes import forked, fresh
from valgap.checks import CATALOGUE

pytestmark = pytest.mark.takes(40)
LOOP = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
torch.manual_seed(0)
x, y = nn.functional.interpolate(torch.randn(60, 3, 3, 3), 8, mode='bilinear'), torch.arange(60) % 3
net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
opt = torch.optim.SGD(net.parameters(), 0.1)
for epoch in range(2):
    net.train()
    for a, b in DataLoader(TensorDataset(x[:40], y[:40]), 8, shuffle=True):
        opt.zero_grad()
        nn.functional.cross_entropy(net(a), b).backward()
        opt.step()
"""
VALIDATION = """
    net.eval()
    with torch.no_grad():
        right = sum((net(a).argmax(1) == b).sum().item() for a, b in DataLoader(TensorDataset(x[40:], y[40:]), 8))
    print("val acc", right / 20)
"""


def valgap(*arguments: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return forked(["-m", "valgap.cli", *arguments], cwd, variables)


def fresh_valgap(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """For what depends on who imports torch, and when."""
    return fresh(["-m", "valgap.cli", *arguments], cwd)


def script(folder: Path, text: str) -> Path:
    file = folder / "train.py"
    file.write_text(text)
    return file


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("valgap: ")]
    assert "Traceback" not in done.stderr
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_no_such_script(tmp_path: Path) -> None:
    assert "nothere.py" in one_line(valgap("run", "nothere.py", cwd=tmp_path))
    assert not (tmp_path / "runs").exists()
    assert "no module named" in one_line(valgap("run", "-m", "not_there", cwd=tmp_path))


def test_no_loader_seen(tmp_path: Path) -> None:
    assert "DataLoader" in one_line(fresh_valgap("run", script(tmp_path, "import torch\n"), cwd=tmp_path))
    assert "never imported torch" in one_line(fresh_valgap("run", script(tmp_path, "print(1)\n"), cwd=tmp_path))


def test_no_validation_seen(tmp_path: Path) -> None:
    done = valgap("run", "--closing", 0, script(tmp_path, LOOP), cwd=tmp_path)
    assert done.returncode == 0  # the training is recorded
    assert "valgap: no validation was seen" in done.stderr and "valgap: recorded in" in done.stderr
    assert "no validation was seen" in one_line(valgap("diagnose", "runs/last", cwd=tmp_path))


def test_a_crash_keeps_the_scripts_status_and_traceback(tmp_path: Path) -> None:
    done = valgap("run", script(tmp_path, LOOP + VALIDATION + "\nraise KeyError('mine')\n"), cwd=tmp_path)
    assert done.returncode == 1
    trace = done.stderr[done.stderr.index("Traceback") :]
    assert "KeyError: 'mine'" in trace
    assert "valgap/" not in trace.split("KeyError")[0]
    assert valgap("run", script(tmp_path, "import sys; sys.exit(7)"), cwd=tmp_path).returncode == 7


def test_a_sound_script(tmp_path: Path) -> None:
    done = fresh_valgap("run", script(tmp_path, LOOP + VALIDATION), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    plain = forked(["train.py"], tmp_path)
    assert done.stdout == plain.stdout
    shown = valgap("report", "runs/last", cwd=tmp_path)
    assert shown.returncode == 0
    assert "validation" in shown.stdout
    body = json.loads(valgap("diagnose", "runs/last", "--json", cwd=tmp_path).stdout)
    assert body["schema"] == 1
    assert body["accuracy"]["val"]["n"] == 20
    page = tmp_path / "r.html"
    assert valgap("diagnose", "runs/last", "--html", page, cwd=tmp_path).returncode == 0
    assert "<!doctype html>" in page.read_text()
    assert not (tmp_path / "runs" / "last" / "report.html").exists()
    opened = valgap("report", "runs/last", "--open", cwd=tmp_path, BROWSER="true")
    assert opened.returncode == 0
    assert Path(opened.stdout.strip()) == (tmp_path / "runs" / "last" / "report.html").resolve()


def test_fail_on(tmp_path: Path) -> None:
    spoiled = (LOOP + VALIDATION).replace("        opt.zero_grad()\n", "")
    assert valgap("run", script(tmp_path, spoiled), cwd=tmp_path).returncode == 0
    assert valgap("diagnose", "runs/last", "--fail-on", "suspected", cwd=tmp_path).returncode == 1
    assert valgap("diagnose", "runs/last", "--fail-on", "confirmed", cwd=tmp_path).returncode == 0
    ignored = valgap("diagnose", "runs/last", "--fail-on", "suspected", "--ignore", "TRN,EVA", cwd=tmp_path)
    assert ignored.returncode == 0


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["diagnose"], "Missing argument 'RUN'"),
        (["nonsense"], "No such command 'nonsense'"),
        (["train", "--epochs", "x"], "--epochs"),
        (["run", "--closing", "99", "x.py"], "--closing"),
    ],
)
def test_wrong_usage_is_told_with_status_two(command: list[str], told: str, tmp_path: Path) -> None:
    done = valgap(*command, cwd=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["diagnose", "report"])
def test_a_run_that_is_none(command: str, tmp_path: Path) -> None:
    assert "no run directory" in one_line(valgap(command, tmp_path / "nothing", cwd=tmp_path))
    (tmp_path / "events.jsonl").write_text('{"t":"header","schema":99}\n')
    assert "schema 99" in one_line(valgap(command, tmp_path, cwd=tmp_path))
    (tmp_path / "events.jsonl").write_text("hello\n")
    assert "no record of valgap" in one_line(valgap(command, tmp_path, cwd=tmp_path))


def test_a_record_is_never_overwritten(tmp_path: Path) -> None:
    file = script(tmp_path, LOOP + VALIDATION)
    assert valgap("run", "--closing", 0, "--out", "a", file, cwd=tmp_path).returncode == 0
    assert "nothing is overwritten" in one_line(valgap("run", "--out", "a", file, cwd=tmp_path))


def test_train_refuses_an_empty_folder_and_one_class(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    assert "photos" in one_line(valgap("train", "photos", "--backbone", "efficientnet_lite0", cwd=tmp_path))
    from PIL import Image

    (tmp_path / "photos" / "cat").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "photos" / "cat" / "a.png")
    assert "one class only" in one_line(valgap("train", "photos", cwd=tmp_path))
    assert not (tmp_path / "runs").exists()


def test_explain(tmp_path: Path) -> None:
    assert "BatchNorm" in valgap("explain", "MOD302", cwd=tmp_path).stdout
    assert len(valgap("explain", cwd=tmp_path).stdout.splitlines()) == len(CATALOGUE)
    assert "no cause" in one_line(valgap("explain", "XXX1", cwd=tmp_path))


def test_a_budget_is_a_time(tmp_path: Path) -> None:
    assert "10m" in one_line(valgap("diagnose", tmp_path, "--budget", "soon", cwd=tmp_path))


def test_shell_completion(tmp_path: Path) -> None:
    done = valgap(cwd=tmp_path, _VALGAP_COMPLETE="complete_bash", COMP_WORDS="valgap di", COMP_CWORD="1")
    assert done.stdout.split() == ["diagnose"]
