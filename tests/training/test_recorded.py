"""`valgap train` at the command line: recorded like any other program, and nothing to complain about in its record."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.processes import ForkedPopen, forked, fresh
from valgap.cli.console import yield_while_waiting
from valgap.record.reader import read_record

pytestmark = pytest.mark.takes(28)


@pytest.fixture(scope="module")
def patterns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of fine patterns in much noise: a probe of a pretrained network tells most apart, and training gains."""
    folder = tmp_path_factory.mktemp("patterns")
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 10)):
        for label, shape in (("across", (6, 8)), ("down", (8, 6)), ("grid", (6, 6))):
            (folder / split / label).mkdir(parents=True)
            for i in range(count):
                cells = np.repeat(np.repeat(rng.integers(0, 255, (*shape, 3)), 96 // shape[0], 0), 96 // shape[1], 1)
                noisy = np.clip(cells + rng.normal(0, 110, cells.shape), 0, 255).astype(np.uint8)
                Image.fromarray(noisy).save(folder / split / label / f"{i}.png")
    return folder


def valgap(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return forked(["-m", "valgap.cli", *arguments], cwd)


def training(patterns: Path, *more: object) -> list[object]:
    return ["train", patterns, "--backbone", "efficientnet_lite0", "--size", 64, *more]


@pytest.mark.parametrize("unfreeze", ["head", "last"])
def test_the_record_is_whole_and_raises_no_alarm(unfreeze: str, patterns: Path, tmp_path: Path) -> None:
    done = valgap(*training(patterns, "--unfreeze", unfreeze, "--epochs", 2, "--out", "run"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "validation accuracy" in done.stdout
    assert "a little optimistic" not in done.stdout
    assert "Validation only measured" in done.stdout
    record = read_record(str(tmp_path / "run"))
    assert record.recorder_errors == ()
    assert record.exit_status == 0
    assert len(record.of_phase("train")) == (2 if unfreeze == "last" else 0)
    last = record.last_validation
    assert last is not None
    names = {record.sample_names[i] for i in last.samples.sample}
    assert len(names) == 30
    assert all("/val/" in name for name in names)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert last.samples.accuracy == pytest.approx(summary["val"]["accuracy"])
    body = json.loads(valgap("diagnose", "run", "--json", cwd=tmp_path).stdout)
    assert body["crashed"] == []
    told = {f["name"] for f in body["findings"] if f["confidence"] >= 0.5}
    assert told <= {"validation_too_small"}  # 30 images are few, where not all of them are right
    # where the head alone learned, no pass names a training image: its folder does
    judged = {f["code"] for kind in ("findings", "clear") for f in body[kind]}
    assert {"DAT101", "DAT103", "DAT106", "DAT108"} <= judged


def test_ctrl_c_keeps_the_best_so_far(patterns: Path, tmp_path: Path) -> None:
    file = tmp_path / "long.yaml"
    file.write_text("unfreeze: last\nselect: val\nepochs: 2000\npatience: 5000\nflip: false\n")
    command = [sys.executable, "-m", "valgap.cli", *map(str, training(patterns, "--config", file, "--out", "run"))]
    output = tmp_path / "output.txt"
    with output.open("wb") as stdout:
        process = ForkedPopen(command, stdout, cwd=tmp_path)
    place = tmp_path / "run" / "state" / "place.json"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (place.exists() and json.loads(place.read_text())["rows"][-1]["epoch"] >= 2):
        assert process.poll() is None, output.read_text()
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(120) == 0, output.read_text()
    assert "ended early: interrupted" in output.read_text()
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()
    again = valgap("predict", "run", patterns / "val", "--csv", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    lines = again.stdout.splitlines()
    assert lines[0] == "path,class,probability,across,down,grid,problem"
    assert len(lines) == 31


def test_wrong_settings_are_one_line(patterns: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("epochs: many\n")
    done = valgap(*training(patterns, "--config", file), cwd=tmp_path)
    assert done.returncode == 2
    assert "line 1: epochs" in done.stderr
    assert "Traceback" not in done.stderr
    assert valgap(*training(patterns, "--unfreeze", "most"), cwd=tmp_path).returncode == 2
    assert valgap("train", cwd=tmp_path).returncode == 2
    assert valgap("train", "--resume", "nothing", cwd=tmp_path).returncode == 2
    assert not (tmp_path / "runs").exists()


def test_threads_sleep_while_they_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What OpenMP says of itself when torch is loaded; the user's own choice is left."""
    monkeypatch.setenv("OMP_DISPLAY_ENV", "TRUE")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    done = fresh(["-m", "valgap.cli", "predict", "nothing", "nothing.png"], tmp_path)
    assert done.returncode == 2
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    yield_while_waiting()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
