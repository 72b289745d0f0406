"""Closing measurements: after the exit status is known, within their time, without a trace in the program."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import nn
from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import ToTensor

import valgap
from tests.processes import forked
from valgap.record.reader import read_record

pytestmark = pytest.mark.takes(20)

PROGRAM = """
import sys, time, torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset
torch.manual_seed(0)
class Slow(Dataset):
    broken, wait = False, 0.0
    def __init__(self, n):
        self.labels = torch.arange(n) % 3
        noise = torch.randn(n, 3, 8, 8)
        self.images = F.interpolate(torch.eye(3)[self.labels][:, :, None, None] * 0.3, 8) + noise
    def __len__(self): return len(self.labels)
    def __getitem__(self, i):
        if Slow.broken: raise RuntimeError("the program has ended")
        time.sleep(Slow.wait)
        return self.images[i], self.labels[i]
train_set, val_set = Slow(40), Slow(64)
net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(144, 3))
opt = torch.optim.SGD(net.parameters(), 0.2)
"""
LOOP = """
for epoch in range(3):
    net.train()
    for x, y in DataLoader(train_set, 8, shuffle=True):
        opt.zero_grad(); F.cross_entropy(net(x), y).backward(); opt.step()
    net.eval()
    with torch.no_grad():
        right = sum((net(x).argmax(1) == y).sum().item() for x, y in DataLoader(val_set, 8))
    total = sum(t.double().sum().item() for t in net.state_dict().values())
    print(f"epoch {epoch} right {right} weights {total:.9f}")
"""


def run(folder: Path, body: str, *options: object) -> subprocess.CompletedProcess[str]:
    (folder / "train.py").write_text(PROGRAM + body)
    done = forked(["-m", "valgap.cli", "run", "--out", "r", *options, "train.py"], folder)
    assert done.stdout == forked(["train.py"], folder).stdout
    return done


def total(file: Path) -> float:
    with safe_open(str(file), "pt") as opened:
        return sum(float(opened.get_tensor(k).double().sum()) for k in opened.keys())  # noqa: SIM118


def test_final_and_best_weights_are_kept(tmp_path: Path) -> None:
    done = run(tmp_path, LOOP, "--closing", 10)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    best = max(lines, key=lambda words: int(words[3]))
    assert total(tmp_path / "r" / "final.safetensors") == pytest.approx(float(lines[-1][5]), abs=1e-6)
    assert total(tmp_path / "r" / "best.safetensors") == pytest.approx(float(best[5]), abs=1e-6)
    with safe_open(str(tmp_path / "r" / "best.safetensors"), "pt") as opened:
        assert float(opened.metadata()["val"]) == pytest.approx(int(best[3]) / 64, abs=1e-6)
    record = read_record(tmp_path / "r")
    assert record.closing is not None
    own, again = record.last_validation, record.closing.rescores["val_eval"]
    assert own is not None
    place = np.argsort(again.sample)
    assert (again.prediction[place] == own.samples.prediction[np.argsort(own.samples.sample)]).all()
    assert {"val_train", "train_eval"} <= set(record.closing.rescores)


def test_they_can_be_turned_off(tmp_path: Path) -> None:
    assert run(tmp_path, LOOP, "--closing", 0).returncode == 0
    assert read_record(tmp_path / "r").closing is None
    assert {p.name for p in (tmp_path / "r").iterdir()} == {"events.jsonl"}


def test_they_end_with_their_time(tmp_path: Path) -> None:
    assert run(tmp_path, "Slow.wait = 0.01\n" + LOOP).returncode == 0
    record = read_record(tmp_path / "r")
    assert record.closing is not None and record.seconds is not None
    # 104 samples and more would take a second; one batch may be begun within the time and end after it.
    assert record.closing.seconds < 0.2 * record.seconds + 0.64 + 1.5
    # On a busy machine the time may be over before the first batch.
    assert len(record.closing.rescores.get("val_eval", ())) <= 64
    assert len(record.closing.rescores.get("train_eval", ())) < 40


@pytest.mark.parametrize(("ending", "status"), [("Slow.broken = True", 0), ("sys.exit(3)", 3), ("raise KeyError(1)", 1)])
def test_the_exit_status_is_the_programs(ending: str, status: int, tmp_path: Path) -> None:
    done = run(tmp_path, LOOP + ending, "--closing", 10)
    assert done.returncode == status, done.stderr
    closing = read_record(tmp_path / "r").closing
    if status:
        assert closing is None
    else:
        assert closing is not None
        assert "the program has ended" in closing.skipped["rescores"]


def test_nothing_is_left_changed(tmp_path: Path) -> None:
    images = nn.functional.interpolate(torch.randn(60, 3, 3, 3, generator=torch.Generator().manual_seed(0)), 8, mode="bilinear")
    train, val = TensorDataset(images[:40], torch.arange(40) % 3), TensorDataset(images[40:], torch.arange(20) % 3)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(144, 3))
    with valgap.watch(out=tmp_path / "r", closing=10):
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for x, y in DataLoader(train, 8, shuffle=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        model[1].eval()
        with torch.no_grad():
            for x, _ in DataLoader(val, 8):
                model(x)
        before = {k: v.clone() for k, v in model.state_dict().items()}
        modes = [m.training for m in model.modules()]
        state, drawn = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    assert "val_train" in read_record(tmp_path / "r").closing.rescores  # type: ignore[union-attr]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == drawn).all()  # type: ignore[index]


def test_answers_among_other_batch_mates(tmp_path: Path) -> None:
    for body, depends in ((LOOP, False), (LOOP.replace("net.eval()", "pass"), True)):
        folder = tmp_path / str(depends)
        folder.mkdir()
        (folder / "train.py").write_text(PROGRAM + body)
        done = forked(["-m", "valgap.cli", "run", "--out", "r", "--closing", 10, "train.py"], folder)
        assert done.returncode == 0, done.stderr
        closing = read_record(folder / "r").closing
        assert closing is not None and closing.numbers["batch_mate_n"] == 4
        assert (closing.numbers["batch_mate_change"] > 0.05) is depends


@pytest.mark.parametrize("own", [False, True])
def test_validation_images_as_the_weights_want_them(own: bool, tmp_path: Path) -> None:
    preparation = "T.Resize(256), T.CenterCrop((224, 224))" if own else "T.Resize((32, 32))"
    body = f"""
import torchvision
from torchvision import transforms as T
def data(n, *steps):
    normalize = T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return torchvision.datasets.FakeData(n, (3, 80, 60), 3, T.Compose([*steps, T.ToTensor(), normalize]))
net = torchvision.models.shufflenet_v2_x0_5(num_classes=3)
opt = torch.optim.SGD(net.parameters(), 0.01)
train_set, val_set = data(16, T.Resize((32, 32))), data(16, {preparation})
"""
    done = run(tmp_path, body + LOOP.replace("range(3)", "range(1)"), "--closing", 10)
    assert done.returncode == 0, done.stderr
    closing = read_record(tmp_path / "r").closing
    assert closing is not None
    if own:
        assert "weights' own" in closing.skipped["val_weights"]
    else:
        assert len(closing.rescores["val_weights"]) == 16


@pytest.mark.parametrize("objects", [1, 2])
def test_two_samplers_of_one_data_set_keep_their_images_apart(objects: int, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    sets = [folder_of(tmp_path, 60) for _ in range(objects)]
    order = torch.randperm(60, generator=generator).tolist()
    train = DataLoader(sets[0], 10, sampler=SubsetRandomSampler(order[:40], generator))
    val = DataLoader(sets[-1], 10, sampler=SubsetRandomSampler(order[40:], generator))
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with valgap.watch(out=tmp_path / "r", closing=1000):
        for x, y in train:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        with torch.no_grad():
            for x, _ in val:
                model(x)
    record = read_record(tmp_path / "r")
    assert record.closing is not None
    drawn = {p.phase: set(p.samples.sample.tolist()) for p in record.passes}
    assert set(record.closing.rescores["val_eval"].sample.tolist()) == drawn["validation"]
    assert set(record.closing.rescores["train_eval"].sample.tolist()) == drawn["train"]


def folder_of(where: Path, images: int) -> ImageFolder:
    """An ImageFolder of that many images in three classes."""
    for i in range(images):
        (where / "photos" / str(i % 3)).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(where / "photos" / str(i % 3) / f"{i}.png")
    return ImageFolder(str(where / "photos"), ToTensor())
