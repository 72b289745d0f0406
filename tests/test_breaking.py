"""What users do to a tool: Ctrl-C, odd names, a notebook, a module, no network."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import valgap
from tests.processes import ForkedPopen, forked
from tests.test_cli import LOOP, VALIDATION, script
from tests.test_cli import valgap as command
from valgap.errors import WeightsError
from valgap.models import create_model
from valgap.record.reader import read_record

pytestmark = pytest.mark.takes(15)
HOSTILE = "x<script>alert(1)<&script>\n$(touch owned)"
ROOT = Path(__file__).parents[1]


def test_ctrl_c_leaves_a_usable_record(tmp_path: Path) -> None:
    slow = (LOOP + VALIDATION).replace("range(2)", "range(100000)") + "    print('epoch', epoch, flush=True)\n"
    file = script(tmp_path, slow)
    output = tmp_path / "output.txt"
    with output.open("wb") as stdout:
        running = ForkedPopen([sys.executable, "-m", "valgap.cli", "run", "--out", "r", str(file)], stdout, cwd=tmp_path)
    while "epoch 5\n" not in output.read_text():
        assert running.poll() is None, output.read_text()
        time.sleep(0.05)
    os.kill(running.pid, signal.SIGINT)
    assert running.wait(60) == 130, output.read_text()
    assert "KeyboardInterrupt" in output.read_text()
    record = read_record(os.fspath(tmp_path / "r"))
    assert record.exit_status == 130
    assert len(record.of_phase("validation")) >= 5
    assert command("diagnose", "r", cwd=tmp_path).returncode == 0


def test_a_training_without_torchs_loaders_and_optimizers_is_read(tmp_path: Path) -> None:
    body = (
        "import torch\n"
        "from torch import nn\n"
        "model, loss = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), nn.CrossEntropyLoss()\n"
        "batches = [(torch.randn(8, 3, 8, 8), torch.arange(8) % 2) for _ in range(6)]\n"
        "for epoch in range(2):\n"
        "    for images, target in batches[2:]:\n"
        "        loss(model(images), target).backward()\n"
        "        for p in model.parameters():\n"
        "            p.data -= 0.1 * p.grad\n"
        "            p.grad = None\n"
        "    with torch.no_grad():\n"
        "        for images, target in batches[:2]:\n"
        "            loss(model(images), target)\n"
    )
    done = command("run", "--out", "r", script(tmp_path, body), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    record = read_record(tmp_path / "r")
    assert [(p.phase, p.optimizer_steps) for p in record.passes] == [("train", 4), ("validation", 0)] * 2
    assert "MOD303" not in done.stdout


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    data = tmp_path / "data"
    noise = np.random.default_rng(0)
    for folder in (data / split / label for split in ("train", "val") for label in (HOSTILE, "plain")):
        folder.mkdir(parents=True)
        for number in range(6):
            pixels = noise.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((64, 64)).save(folder / f"{HOSTILE}{number}.png")
    done = command("run", "--out", "r", ROOT / "tests" / "habits" / "plain_loop.py", data, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = command("diagnose", "r", "--json", "--html", "page.html", cwd=tmp_path)
    json.loads(told.stdout)
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page
    assert not (tmp_path / "owned").exists()
    names = read_record(os.fspath(tmp_path / "r")).sample_names
    assert any(HOSTILE in name for name in names)


def test_a_module_is_run_as_python_runs_it(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    text = "from package.names import WORD\nimport sys\nprint(WORD, sys.argv[1:], __name__, __package__)\n"
    (package / "names.py").write_text("WORD = 'hello'\n")
    (package / "train.py").write_text(text + LOOP + VALIDATION)
    done = command("run", "-m", "package.train", "--lr", "0.1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    plain = forked(["-m", "package.train", "--lr", "0.1"], tmp_path)
    assert done.stdout == plain.stdout
    assert (tmp_path / "runs" / "last").resolve().name.endswith("package.train")


def test_watch_in_a_notebook(tmp_path: Path) -> None:
    images = nn.functional.interpolate(torch.randn(24, 3, 3, 3, generator=torch.Generator().manual_seed(0)), 8, mode="bilinear")
    data = TensorDataset(images, torch.arange(24) % 3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    with valgap.watch(out=tmp_path / "r", closing=0) as folder:
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(2):
            model.train()
            for inputs, targets in DataLoader(data, 8, shuffle=True):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(inputs), targets).backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                for inputs, _ in DataLoader(data, 8):
                    model(inputs)
    phases = [p.phase for p in read_record(os.fspath(folder)).passes]
    assert phases == ["train", "validation"] * 2
    assert not torch.nn.modules.module._global_forward_pre_hooks
    assert valgap.diagnose(folder).judged
    with pytest.raises(ValueError, match="mine"), valgap.watch(out=tmp_path / "r2"):
        raise ValueError("mine")
    assert read_record(os.fspath(tmp_path / "r2")).exit_status == 1


def test_no_network_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def unresolved(*_: object) -> None:
        raise OSError("no name resolves")

    monkeypatch.setattr("valgap.models.backbones.getproxies", dict)
    monkeypatch.setattr("valgap.models.backbones.socket.getaddrinfo", unresolved)
    said: list[str] = []
    began = time.perf_counter()
    with pytest.raises(WeightsError, match="Four ways out: a local file"):
        create_model("resnet50", 3, say=said.append)
    assert time.perf_counter() - began < 20
    assert "download" in said[0]
