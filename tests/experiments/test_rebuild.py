"""What closing measurements say does not depend on the time that they had: what was cut short is made by a rebuilt program."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.processes import ForkedPopen, forked
from valgap.diagnosis import diagnose
from valgap.experiments.rebuild import completed
from valgap.record.reader import read_record
from valgap.types import RunRecord

pytestmark = pytest.mark.takes(12)

PROGRAM = """
import time
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset
torch.manual_seed(0)
class Slow(Dataset):
    def __init__(self, n):
        self.labels = torch.arange(n) % 3
        self.images = F.interpolate(torch.eye(3)[self.labels][:, :, None, None] * 0.3, 8) + torch.randn(n, 3, 8, 8)
    def __len__(self): return len(self.labels)
    def __getitem__(self, i):
        time.sleep(0.001)
        return self.images[i], self.labels[i]
train_set, val_set = Slow(90), Slow(64)
net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
opt = torch.optim.SGD(net.parameters(), 0.2)
schedule = torch.optim.lr_scheduler.StepLR(opt, 2)
for epoch in range(4):
    net.train()
    for x, y in DataLoader(train_set, 8, shuffle=True):
        opt.zero_grad(); F.cross_entropy(net(x), y).backward(); opt.step()
    schedule.step()
    net.eval()
    with torch.no_grad():
        print(sum((net(x).argmax(1) == y).sum().item() for x, y in DataLoader(val_set, 8)))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program recorded twice: with all the time that its measurements need, and with hardly any."""
    place = tmp_path_factory.mktemp("rebuild")
    (place / "train.py").write_text(PROGRAM)
    for name, share in (("whole", "10"), ("cut", "0.02")):
        done = forked(["-m", "valgap.cli", "run", "--out", name, "--closing", share, "train.py"], place)
        assert done.returncode == 0, done.stderr
    return place


def rebuilt(run: RunRecord, monkeypatch: pytest.MonkeyPatch) -> tuple[RunRecord, str, list[str]]:
    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr("subprocess.Popen", ForkedPopen)
        record, problem = completed(run, said.append)
    return record, problem, said


def test_what_was_cut_short_is_made_as_if_there_had_been_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut = read_record(folder / "whole"), read_record(folder / "cut")
    assert whole.closing is not None and cut.closing is not None
    assert whole.closing.cut == () and cut.closing.cut
    assert completed(whole) == (whole, "")
    record, problem, said = rebuilt(cut, monkeypatch)
    assert problem == "" and len(said) == 1 and "without training" in said[0]
    closing = record.closing
    assert closing is not None and closing.cut == ()
    assert set(closing.rescores) == set(whole.closing.rescores)
    for name, table in whole.closing.rescores.items():
        made = closing.rescores[name]
        assert [record.sample_names[i] for i in made.sample] == [whole.sample_names[i] for i in table.sample], name
        np.testing.assert_allclose(made.loss, table.loss, rtol=1e-4, atol=1e-5)
        assert (made.prediction == table.prediction).all()
    assert dict(closing.numbers) == pytest.approx(dict(whole.closing.numbers), rel=1e-3, abs=1e-4, nan_ok=True)
    # Made once: it is read the next time.
    assert rebuilt(cut, monkeypatch)[2] == []
    assert (folder / "train.py").read_text() == PROGRAM


def test_what_was_left_out_names_the_option_that_left_it_out(folder: Path) -> None:
    told = {name: diagnose(folder / name, images=0, rebuild=False).unmeasured for name in ("whole", "cut")}
    assert told["whole"] == "" and "without --no-rebuild" in told["cut"]


def test_another_program_is_not_taken_for_the_recorded_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = read_record(folder / "cut")
    changed = replace(cut, header={**cut.header, "script_digest": "0"})
    record, problem, said = rebuilt(changed, monkeypatch)
    assert record is changed and "has changed since the run" in problem and said == []


def test_a_failure_is_told_and_tried_again_another_day(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = PROGRAM.replace(
        "torch.manual_seed(0)", "import os\nif os.path.exists('second'): raise SystemExit(3)\ntorch.manual_seed(0)"
    )
    (tmp_path / "train.py").write_text(program)
    done = forked(["-m", "valgap.cli", "run", "--out", "r", "--closing", "0.02", "train.py"], tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "second").touch()
    run = read_record(tmp_path / "r")
    record, problem, said = rebuilt(run, monkeypatch)
    assert record is run and "status 3" in problem and len(said) == 1
    (tmp_path / "second").unlink()  # what was away (a file, the network) is back
    record, problem, said = rebuilt(run, monkeypatch)
    assert problem == "" and record.closing is not None and not record.closing.cut and len(said) == 1


IN_MEMORY = """
import torch
import torch.nn.functional as F
from torch import nn
torch.manual_seed(0)
y = torch.arange(140) % 3
x = F.interpolate(torch.eye(3)[y][:, :, None, None], 8) + torch.randn(140, 3, 8, 8)
x, y, vx, vy = x[:90], y[:90], x[90:], y[90:]
net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
opt = torch.optim.SGD(net.parameters(), 0.05)
for epoch in range(3):
    net.train()
    for rows in torch.randperm(90).split(10):
        opt.zero_grad(); F.cross_entropy(net(x[rows]), y[rows]).backward(); opt.step()
    net.eval()
    with torch.no_grad():
        print(sum(F.cross_entropy(net(vx[i : i + 10]), vy[i : i + 10]).item() for i in range(0, 50, 10)))
"""


def test_a_program_without_loaders_is_rebuilt_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.py").write_text(IN_MEMORY)
    done = forked(["-m", "valgap.cli", "run", "--out", "r", "--closing", "0.001", "train.py"], tmp_path)
    assert done.returncode == 0, done.stderr
    run = read_record(tmp_path / "r")
    record, problem, _ = rebuilt(run, monkeypatch)
    assert problem == "" and record.closing is not None and run.last_validation is not None
    before = dict(zip(run.last_validation.samples.sample.tolist(), run.last_validation.samples.loss.tolist(), strict=True))
    after = record.closing.rescores["val_eval"]
    np.testing.assert_allclose(after.loss, [before[s] for s in after.sample.tolist()], rtol=1e-3, atol=1e-4)
