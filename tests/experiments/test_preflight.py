"""A program cut short: few steps, a spread validation, the end of its first epoch, and nothing written but the record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.processes import ForkedPopen
from valgap.experiments.preflight import Rehearsal, rehearse
from valgap.record.reader import read_record
from valgap.types import RunRecord

pytestmark = pytest.mark.takes(60)
PROGRAM = """
import sys
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
torch.manual_seed(0)
how = sys.argv[1] if len(sys.argv) > 1 else ""
classes = 4
def data(n, ordered):
    y = torch.arange(n) * classes // n if ordered else torch.arange(n) % classes
    return F.interpolate(torch.randn(classes, 3, 2, 2), 8)[y] + 0.1 * torch.randn(n, 3, 8, 8), y
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(144, classes)
    def forward(self, x):
        return self.head(self.body(x))
train = TensorDataset(*data(401 if how == "one_left" else 404, False))
val = TensorDataset(*data(400, True))
net = Net()
opt = torch.optim.SGD(net.parameters(), 0.05)
train_loader = DataLoader(train, 8, shuffle=True, num_workers=2 if how == "workers" else 0)
val_loader = DataLoader(val, 16)
print("batches", len(train_loader), len(val_loader))
for epoch in range(5):
    if how != "stays_in_eval" or epoch == 0:
        net.train()
    if how == "by_next":
        it = iter(train_loader)
        batches = (next(it) for _ in range(len(train_loader)))
    else:
        batches = train_loader
    for x, y in batches:
        if how == "one_left" and len(x) == 1:
            net.body[1](torch.zeros(1, 4, 1, 1))
        opt.zero_grad()
        F.cross_entropy(net(x), y).backward()
        opt.step()
    net.eval()
    if how != "late" or epoch == 4:
        with torch.no_grad():
            right = sum((net(x).argmax(1) == y).sum().item() for x, y in val_loader)
        print(f"epoch {epoch} val acc {right / len(val):.4f}")
    if how == "no_folder":
        torch.save(net.state_dict(), "nowhere/net.pt")
    torch.save(net.state_dict(), f"net-{epoch}.pt")
    open("log.txt", "a").write(f"{epoch}\\n")
print("the end")
"""


def rehearsed(folder: Path, how: str = "", **given: float) -> tuple[Rehearsal, RunRecord]:
    file = folder / "train.py"
    file.write_text(PROGRAM)
    settings = {"steps": 12, "images": 96, "seconds": 60.0, **given}
    end = rehearse([str(file), *([how] if how else [])], folder / "record", **settings)  # type: ignore[arg-type]
    return end, read_record(folder / "record")


@pytest.fixture(autouse=True)
def in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.chdir(tmp_path)
    if "workers" not in request.node.name:  # a loader's workers are forked by an interpreter of its own
        monkeypatch.setattr("subprocess.Popen", ForkedPopen)


def phases(run: RunRecord) -> list[str]:
    return [p.phase for p in run.passes]


def test_a_sound_program_is_cut_and_says_so(tmp_path: Path) -> None:
    end, run = rehearsed(tmp_path)
    cut = run.shortened
    assert (end.status, end.error, end.place) == (0, None, None)
    assert phases(run) == ["train", "validation"]
    assert cut is not None and cut.ended_by == "epoch" and cut.cut(0) and cut.cut(1)
    train, val = run.passes
    assert train.optimizer_steps == 13  # the incomplete last batch of the loader comes after twelve
    assert train.batch_sizes.tolist() == [8] * 12 + [4]
    assert cut.passes[0].whole == 51 and cut.passes[1].whole == 25
    assert not train.complete and not val.complete
    assert cut.next_mode == 1.0
    assert "batches 51 25" in end.tail
    # The validation set is in the order of its classes: all of them are seen, and its order is kept.
    assert np.bincount(val.samples.target).tolist() == [24] * 4
    assert np.all(np.diff(val.samples.sample) > 0)
    # Its files stay in the sandbox, and are known.
    assert {Path(f.path).name for f in cut.files} == {"net-0.pt", "log.txt"}
    assert sorted(f.name for f in tmp_path.iterdir()) == ["record", "train.py"]
    assert not run.recorder_errors


def test_workers_read_ahead_and_the_cut_holds(tmp_path: Path) -> None:
    end, run = rehearsed(tmp_path, "workers")
    assert end.status == 0 and phases(run) == ["train", "validation"]
    sizes = run.passes[0].batch_sizes.tolist()
    assert sizes[-1] == 4 and 13 <= len(sizes) <= 20


def test_a_mode_that_is_left_in_the_second_epoch_is_seen(tmp_path: Path) -> None:
    _, run = rehearsed(tmp_path, "stays_in_eval")
    assert run.shortened is not None and run.shortened.next_mode == 0.0
    assert phases(run) == ["train", "validation"]


def test_validation_in_the_end_alone_is_waited_for(tmp_path: Path) -> None:
    _, run = rehearsed(tmp_path, "late")
    assert run.shortened is not None and run.shortened.ended_by == "itself"
    assert phases(run) == ["train"] * 5 + ["validation"]
    assert [p.num_batches for p in run.of_phase("train")] == [13, 2, 2, 2, 2]


def test_a_failing_checkpoint_is_told_with_its_line(tmp_path: Path) -> None:
    end, run = rehearsed(tmp_path, "no_folder")
    assert end.failed and end.error is not None and "nowhere" in end.error
    assert end.place is not None and end.place[0] == str(tmp_path / "train.py")
    assert "nowhere/net.pt" in PROGRAM.splitlines()[end.place[1] - 1]
    assert run.shortened is not None and run.shortened.ended_by == "failure" and run.exit_status == 1


def test_the_last_batch_of_one_image_fails_as_it_will(tmp_path: Path) -> None:
    end, _ = rehearsed(tmp_path, "one_left")
    assert end.error is not None and "more than 1 value per channel" in end.error


def test_a_loop_that_counts_its_batches_is_not_broken(tmp_path: Path) -> None:
    end, run = rehearsed(tmp_path, "by_next")
    assert end.status == 0, end.error
    assert phases(run) == ["train", "validation"]
    assert run.passes[0].num_batches == 51


def test_when_the_time_is_up_it_ends(tmp_path: Path) -> None:
    end, run = rehearsed(tmp_path, "late", seconds=0.01)
    assert end.status == 0 and run.shortened is not None and run.shortened.ended_by == "time"
    assert run.passes[0].num_batches >= 1


FEATURES = """
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
torch.manual_seed(0)
body, head = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()).eval(), nn.Linear(144, 4)
def features(n):
    y = torch.arange(n) % 4
    loader = DataLoader(TensorDataset(torch.randn(n, 3, 8, 8) + y[:, None, None, None], y), 8)
    with torch.no_grad():
        return TensorDataset(torch.cat([body(x) for x, _ in loader]), y)  # the targets of all
train, val = features(400), features(200)
opt = torch.optim.SGD(head.parameters(), 0.1)
for epoch in range(3):
    for x, y in DataLoader(train, 8, shuffle=True):
        opt.zero_grad(); F.cross_entropy(head(x), y).backward(); opt.step()
    with torch.no_grad():
        print(sum((head(x).argmax(1) == y).sum().item() for x, y in DataLoader(val, 8)) / len(val))
"""


def test_features_of_all_images_are_made_before_anything_is_cut(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(FEATURES)
    end = rehearse([str(tmp_path / "train.py")], tmp_path / "record", 12, 96, 60.0)
    assert end.status == 0, end.error
    run = read_record(tmp_path / "record")
    whole = [p.num_batches for p in run.passes if not p.backwards][:2]
    assert whole == [50, 25]
    assert run.shortened is not None and run.shortened.ended_by == "epoch"
    assert [p.optimizer_steps for p in run.of_phase("train")] == [12]
