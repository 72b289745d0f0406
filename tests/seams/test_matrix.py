"""Small programs, one for each way in which people write training loops; what the record must say of each."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.processes import ForkedPopen, forked
from valgap.record.reader import read_record
from valgap.types import Phase, RunRecord

pytestmark = pytest.mark.takes(25)
SETUP = """
import copy, sys, torch
import torch.nn as nn, torch.nn.functional as F
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset, random_split
torch.manual_seed(0)
X = F.interpolate(torch.randn(60, 3, 4, 4), 16, mode="bilinear"); Y = torch.arange(60) % 3
train_set, val_set = TensorDataset(X[:40], Y[:40]), TensorDataset(X[40:], Y[40:])
train, val = DataLoader(train_set, 8, shuffle=True), DataLoader(val_set, 8)
def make():
    body = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    return nn.Sequential(*body, nn.Linear(24, 3))
net = make(); opt = torch.optim.SGD(net.parameters(), 0.1); call = net
lossf = F.cross_entropy
def fit(step=None):
    net.train()
    for x, y in train:
        if step: step(x, y); continue
        opt.zero_grad(); lossf(call(x), y).backward(); opt.step()
@torch.no_grad()
def check(loader=None, model=None):
    m = model or call; m.eval()
    right = sum((m(x).argmax(1) == y).sum().item() for x, y in (loader or val))
    print("val acc", right / len((loader or val).dataset))
"""
BOTH: list[Phase] = ["train", "validation"]


def record(tmp_path: Path, body: str, *, status: int = 0) -> RunRecord:
    """The record of SETUP followed by ``body``, whose printed output is the same without the recorder."""
    file = tmp_path / "program.py"
    file.write_text(SETUP + body + "\nprint('weights', sum(p.double().sum().item() for p in net.state_dict().values()))\n")
    done = forked(["-m", "valgap.cli", "run", "--closing", "0", "--out", tmp_path / "run", file], tmp_path)
    assert done.returncode == status, done.stderr
    plain = forked([file], tmp_path)
    assert done.stdout == plain.stdout
    warnings = [line for line in done.stderr.splitlines() if "Warning" in line]
    assert warnings == [line for line in plain.stderr.splitlines() if "Warning" in line]
    found = read_record(tmp_path / "run")
    assert found.recorder_errors == ()
    return found


def phases(run: RunRecord) -> list[Phase]:
    return [p.phase for p in run.passes]


CALLS = {
    "module": "",
    "compiled": "call = torch.compile(net, backend='eager')",
    "compiled in place": "net.compile(backend='eager')",
    "parallel": "call = nn.DataParallel(net)",
    "torchvision": "import torchvision; net = call = torchvision.models.squeezenet1_1(num_classes=3); "
    "opt = torch.optim.SGD(net.parameters(), 0.01); X = F.interpolate(X, 32); "
    "train = DataLoader(TensorDataset(X[:40], Y[:40]), 8, shuffle=True); val = DataLoader(TensorDataset(X[40:], Y[40:]), 8)",
}


@pytest.mark.parametrize("how", CALLS)
def test_ways_to_call_a_model(how: str, tmp_path: Path) -> None:
    run = record(tmp_path, CALLS[how] + "\nfor e in range(2): fit(); check()")
    assert phases(run) == BOTH * 2
    assert all((p.samples.sample >= 0).all() and len(p.samples) == (40 if p.phase == "train" else 20) for p in run.passes)
    assert [p.modes.training_flag for p in run.passes] == [1.0, 0.0, 1.0, 0.0]
    model = run.trained_model
    assert model is not None
    assert model.in_optimizer[model.is_parameter].all()


LOSSES = {
    "CrossEntropyLoss": ("nn.CrossEntropyLoss()", "cross_entropy", "index"),
    "smoothed": ("nn.CrossEntropyLoss(label_smoothing=0.1)", "cross_entropy", "index"),
    "nll": ("lambda o, y: F.nll_loss(o.log_softmax(1), y)", "nll_loss", "index"),
    "onehot bce": ("lambda o, y: F.binary_cross_entropy_with_logits(o, F.one_hot(y, 3).float())",
                   "binary_cross_entropy_with_logits", "onehot"),
    "soft": ("lambda o, y: F.cross_entropy(o, F.one_hot(y, 3) * 0.9 + 0.1 / 3)", "cross_entropy", "soft"),
    "mixup": ("lambda o, y: 0.7 * F.cross_entropy(o, y) + 0.3 * F.cross_entropy(o, y.flip(0))", "cross_entropy", "index"),
}  # fmt: skip


@pytest.mark.parametrize("kind", LOSSES)
def test_losses(kind: str, tmp_path: Path) -> None:
    code, name, target = LOSSES[kind]
    run = record(tmp_path, f"lossf = {code}\nfor e in range(1): fit(); check()")
    train = run.last_train
    assert train is not None and train.loss is not None
    assert (train.loss.name, train.loss.target_kind) == (name, target)
    assert train.loss.calls_per_batch == (2 if kind == "mixup" else 1)
    assert train.loss.label_smoothing == (0.1 if kind == "smoothed" else 0)
    assert (train.samples.target == train.samples.sample % 3).all()
    assert np.isfinite(train.steps.loss).all()


def test_teacher_and_student_and_an_averaged_copy(tmp_path: Path) -> None:
    run = record(
        tmp_path,
        """
teacher, average = make().eval(), copy.deepcopy(net)
def step(x, y):
    with torch.no_grad(): soft = teacher(x).softmax(1)
    opt.zero_grad(); o = net(x)
    (F.cross_entropy(o, y) + F.kl_div(o.log_softmax(1), soft, reduction="batchmean")).backward(); opt.step()
    with torch.no_grad():
        for a, b in zip(average.parameters(), net.parameters()): a.lerp_(b, 0.5)
for e in range(2): fit(step); check(); check(model=average)
""",
    )
    assert phases(run) == ["train", "validation", "other"] * 2
    assert {p.model for p in run.passes if p.phase != "other"} == {run.last_train.model}  # type: ignore[union-attr]
    assert run.states[0].moment == "start"


def test_validation_before_inside_and_after(tmp_path: Path) -> None:
    run = record(
        tmp_path,
        """
check()
for e in range(2):
    net.train()
    for i, (x, y) in enumerate(train):
        opt.zero_grad(); lossf(net(x), y).backward(); opt.step()
        if i == 2: check(); net.train()
check()
""",
    )
    assert sorted(phases(run)) == ["train"] * 2 + ["validation"] * 4
    assert [len(p.samples) for p in run.of_phase("train")] == [40, 40]
    assert [len(p.samples) for p in run.of_phase("validation")] == [20] * 4
    assert [p.optimizer_steps for p in run.of_phase("train")] == [5, 5]


def test_inference_mode_from_the_start(tmp_path: Path) -> None:
    run = record(
        tmp_path,
        """
@torch.inference_mode()
def score():
    net.eval()
    print("val acc", sum((call(x).argmax(1) == y).sum().item() for x, y in val) / 20)
score()
for e in range(2): fit(); score()
""",
    )
    assert phases(run) == ["validation", *BOTH, *BOTH]
    assert [p.modes.grad_enabled for p in run.passes] == [0, 1, 0, 1, 0]
    model = run.trained_model
    assert model is not None and model.trained
    assert model.got_gradient[model.is_parameter].sum() >= 5  # a convolution's bias before BatchNorm gets next to none
    assert run.states[0].moved(run.states[-1]).any()


def test_train_set_re_scored_a_glance_and_a_break(tmp_path: Path) -> None:
    run = record(
        tmp_path,
        """
net(next(iter(train))[0])
for e in range(2): fit(); check(train); check()
for x, y in train:
    net(x); break
""",
    )
    real = [p.phase for p in run.passes if p.num_batches > 1]
    assert real == ["train", "other", "validation"] * 2
    assert [p.phase for p in run.passes if p.num_batches == 1] == ["other", "other"]


def test_accumulation_schedules_and_two_optimizers(tmp_path: Path) -> None:
    run = record(
        tmp_path,
        """
groups = [{"params": net[5].weight}, {"params": net[5].bias, "lr": 0.5}]
opts = [torch.optim.SGD(net[0].parameters(), 0.1), torch.optim.AdamW(groups, 0.01)]
slow = torch.optim.lr_scheduler.StepLR(opts[0], 1, 0.1); fast = torch.optim.lr_scheduler.ExponentialLR(opts[1], 0.5)
for e in range(2):
    net.train()
    for i, (x, y) in enumerate(train):
        (lossf(net(x), y) / 2).backward()
        if i % 2 == 1:
            for o in opts: o.step(); o.zero_grad()
            fast.step()
    net.zero_grad(); slow.step(); check()
""",
    )
    first, second = run.of_phase("train")
    assert [o.kind for o in run.optimizers.values()] == ["SGD", "AdamW"]
    assert first.backwards == 5 and first.optimizer_steps == 4
    own = first.steps.optimizer == 0
    assert first.steps.learning_rate[own, 0].tolist() == pytest.approx([0.1, 0.1])
    assert second.steps.learning_rate[second.steps.optimizer == 0, 0].tolist() == pytest.approx([0.01, 0.01])
    assert first.steps.learning_rate[~own].tolist() == [pytest.approx([0.01, 0.5]), pytest.approx([0.005, 0.25])]
    assert not (first.steps.stale_gradients == 1).any()
    model = run.trained_model
    assert model is not None
    assert dict(zip(model.tensor_names, model.in_optimizer, strict=True))["1.weight"] == np.False_


def test_micro_batches_sliced_from_a_loaded_one(tmp_path: Path) -> None:
    run = record(
        tmp_path,
        """
for e in range(2):
    net.train()
    for x, y in train:
        opt.zero_grad()
        for k in range(0, len(x), 3):
            (lossf(net(x[k:k + 3]), y[k:k + 3]) * len(x[k:k + 3]) / len(x)).backward()
        opt.step()
    check()
""",
    )
    assert phases(run) == BOTH * 2
    for one in run.of_phase("train"):
        assert sorted(one.samples.sample.tolist()) == sorted(set(one.samples.sample.tolist())) and len(one.samples) == 40
        names = [run.sample_names[i] for i in one.samples.sample]
        positions = [int(n.split("[")[1][:-1]) for n in names]
        assert one.samples.target.tolist() == [i % 3 for i in positions]
        assert (one.optimizer_steps, one.backwards, one.batch_sizes.tolist()) == (5, 15, [3, 3, 2] * 5)


def test_missing_zero_grad(tmp_path: Path) -> None:
    run = record(tmp_path, "opt.zero_grad = lambda *a: None\nfor e in range(2): fit(); check()")
    flags = run.of_phase("train")[-1].steps.stale_gradients
    assert (flags == 1).all()


def test_best_weights_restored_at_the_end(tmp_path: Path) -> None:
    run = record(
        tmp_path,
        """
first = copy.deepcopy(net.state_dict())
for e in range(2): fit(); check()
net.load_state_dict(first)
""",
    )
    states = [run.states[p.state] for p in run.passes]
    assert not states[-1].moved(states[-2]).any()  # the last validation changed nothing
    assert states[-1].moved(run.states[0]).any()  # and was written before the weights went back
    assert run.weights_loaded[-1].matched == run.weights_loaded[-1].given
    assert not run.weights_loaded[-1].before_training


def test_data_sets_of_data_sets(tmp_path: Path) -> None:
    run = record(
        tmp_path,
        """
class Pairs(Dataset):
    def __init__(self, base): self.base = base
    def __len__(self): return len(self.base)
    def __getitem__(self, i): x, y = self.base[i]; return {"id": i, "x": x, "y": y}
whole = TensorDataset(X, Y)
part = Subset(ConcatDataset([Subset(whole, range(30, 60)), Subset(whole, range(30))]), list(range(0, 60, 2)))
a, b = random_split(part, [20, 10], generator=torch.Generator().manual_seed(1))
train, val = DataLoader(Pairs(a), 6, shuffle=True), DataLoader(Pairs(b), 5)
for e in range(1):
    net.train()
    for d in train: opt.zero_grad(); lossf(net(d["x"]), d["y"]).backward(); opt.step()
    net.eval()
    with torch.no_grad():
        for d in val: net(d["x"])
""",
    )
    assert phases(run) == BOTH
    seen: set[int] = set()
    for one in run.passes:
        index = [int(run.sample_names[i].split("[")[1][:-1]) for i in one.samples.sample]
        assert [i % 3 for i in index] == one.samples.target.tolist()
        seen |= set(index)
    assert seen == set(range(0, 60, 2))


def test_no_loader_at_all(tmp_path: Path) -> None:
    run = record(
        tmp_path,
        """
for e in range(2):
    net.train()
    for i in range(0, 40, 8): opt.zero_grad(); lossf(net(X[i:i+8]), Y[i:i+8]).backward(); opt.step()
    net.eval()
    with torch.no_grad(): net(X[40:])
""",
    )
    assert phases(run) == BOTH * 2
    assert (run.passes[0].samples.target >= 0).all()


def test_readable_after_kill(tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text(
        SETUP + "import time\nfit(); check(); print('ready', flush=True)\nfor x, y in train: net(x); time.sleep(60)\n"
    )
    output = tmp_path / "output.txt"
    with output.open("wb") as stdout:
        command = [sys.executable, "-m", "valgap.cli", "run", "--out", str(tmp_path / "run"), str(file)]
        process = ForkedPopen(command, stdout)
    while "ready" not in output.read_text():
        assert process.poll() is None, output.read_text()
        time.sleep(0.1)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    run = read_record(tmp_path / "run")
    assert phases(run) == BOTH
    assert run.exit_status is None
    assert run.stopped is not None and "killed" in run.stopped


def test_readable_wherever_it_is_cut(tmp_path: Path) -> None:
    record(tmp_path, "for e in range(2): fit(); check()")
    file = tmp_path / "run" / "events.jsonl"
    whole = file.read_bytes()
    head = whole.index(b"\n") + 1
    counts = []
    for cut in np.linspace(head, len(whole), 40).astype(int):
        file.write_bytes(whole[:cut])
        counts.append(len(read_record(tmp_path / "run").passes))
    assert counts == sorted(counts)
    assert counts[-1] == 4


def test_a_full_disk_ends_the_record_not_the_program(tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text(
        "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        + SETUP
        + "fit(); check()\nimport os\nsize = os.path.getsize('run/events.jsonl')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (size + 700, size + 700))\nfit(); check(); print('end')\n"
    )
    done = forked(["-m", "valgap.cli", "run", "--closing", "0", "--out", "run", "program.py"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "end" in done.stdout
    assert "record stops early" in done.stderr
    run = read_record(tmp_path / "run")
    assert phases(run) == BOTH
    assert run.stopped is not None and "stopped early" in run.stopped


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 KB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a file system can only be mounted by an administrator")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_file_system_without_space_ends_the_record_not_the_program(small_disk: Path, tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    fill = f"open({str(small_disk / 'other')!r}, 'wb').write(bytes(os.statvfs({str(small_disk)!r}).f_bavail * 4096 - 4096))"
    file.write_text(SETUP + f"import os\nfit(); check()\n{fill}\nfit(); check(); print('end')\n")
    done = forked(["-m", "valgap.cli", "run", "--out", small_disk / "run", file], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "end" in done.stdout
    assert "record stops early: No space left on device" in done.stderr
    run = read_record(small_disk / "run")
    assert phases(run)[:2] == BOTH
    assert run.stopped is not None and "No space left" in run.stopped


def test_size_of_a_long_record(tmp_path: Path) -> None:
    record(
        tmp_path,
        """
X = torch.randn(500, 3, 16, 16); Y = torch.arange(500) % 3
train, val = DataLoader(TensorDataset(X, Y), 16, shuffle=True), DataLoader(TensorDataset(X + 1, Y), 16)
for e in range(20): fit(); check()
""",
    )
    assert (tmp_path / "run" / "events.jsonl").stat().st_size < 5_000_000


def test_norms_by_group_of_layers_are_those_of_plain_autograd(tmp_path: Path) -> None:
    run = record(
        tmp_path,
        """
net.train(); told = []
for x, y in train:
    opt.zero_grad(); lossf(net(x), y).backward()
    told.append([net[0].weight.grad.norm().item(), net[5].weight.grad.norm().item(), net[5].weight.norm().item()])
    opt.step()
check(); print(told)
""",
    )
    train, model = run.last_train, run.trained_model
    assert train is not None and model is not None
    text = next(n.line for n in run.printed if n.line.startswith("[["))
    told = np.array(eval(text), float)
    assert model.layer_groups == ("0", "1", "5")
    assert [model.layer_groups[g] for g in model.group_of] == [n.split(".")[0] for n in model.tensor_names]
    steps = train.steps
    sampled = np.isfinite(steps.grad_norm)
    assert sampled.tolist() == [True] * 4 + [False]
    whole = np.sqrt((steps.group_grad_norm[sampled] ** 2).sum(1))
    assert whole == pytest.approx(steps.grad_norm[sampled], rel=1e-5)
    # The group holds the bias too, so it is at least its weight's norm; plain SGD moves by the rate times the gradient.
    assert (steps.group_grad_norm[sampled, 2] >= told[:4, 1] * 0.9999).all()
    assert steps.group_update_ratio[0, 2] == pytest.approx(0.1 * steps.group_grad_norm[0, 2] / told[0, 2], rel=0.1)
    assert np.isnan(steps.group_grad_norm[~sampled]).all()
