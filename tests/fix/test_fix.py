"""The whole way: findings and decisions become a manifest, edits and a better run; nothing of the user's changes."""

from __future__ import annotations

import csv
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.checks.cases import healthy
from tests.experiments.test_sandbox import tree
from tests.processes import ForkedPopen, forked
from tests.report.pages import diagnosis, finding, record
from valgap.checks import CATALOGUE
from valgap.errors import ValgapError
from valgap.fix import fix, program
from valgap.fix.manifest import LEFT_OUT, images_of, link_images, plan_images, write_manifest
from valgap.fix.retrain import _options, data_interventions
from valgap.fix.scores import answers, compare
from valgap.review.decisions import Decision, Decisions
from valgap.types import Finding, Intervention, Judged, Untreatable

pytestmark = pytest.mark.takes(28)
PROGRAM = """
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms
import helper

torch.manual_seed(0)
mean, std = [0.5, 0.5, 0.5], [0.05, 0.05, 0.05]
train_tf = transforms.Compose([transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize(mean, std)])
val_tf = transforms.Compose([transforms.ToTensor()])
train_set = datasets.ImageFolder("photos/train", train_tf)
val_set = datasets.ImageFolder("photos/val", val_tf)
train_loader = DataLoader(train_set, 10, shuffle=True)
val_loader = DataLoader(val_set, 10)
net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
optimizer = torch.optim.Adam(net.parameters(), 0.02)
for epoch in range(3):
    net.train()
    for x, y in train_loader:
        loss = nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()
    right = 0
    with torch.no_grad():
        for x, y in val_loader:
            right += (net(x).argmax(1) == y).sum().item()
    print("val acc", helper.share(right, len(val_set)))
torch.save(net.state_dict(), "model.pt")
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a program whose validation images are not normalised, and its record ``r``."""
    home = tmp_path_factory.mktemp("home")
    rng = np.random.default_rng(0)
    for split, count in (("train", 20), ("val", 15)):
        for label, red in (("cold", 118), ("warm", 138)):
            folder = home / "photos" / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.normal((red, 128, 128), 8, (3, 3, 3)).clip(0, 255).astype(np.uint8)
                smooth = Image.fromarray(pixels).resize((24, 24), Image.Resampling.BICUBIC)
                smooth.save(folder / f"{split[0]}{i}.png")
    (home / "train.py").write_text(PROGRAM)
    (home / "helper.py").write_text("def share(right, n):\n    return right / n\n")
    done = forked(["-m", "valgap.cli", "run", "--out", "r", "train.py"], home)
    assert done.returncode == 0, done.stderr
    return home


def test_a_fault_in_a_script_is_edited_out_and_proved(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {k: v for k, v in tree(home).items() if k.split("/")[0] != "r"}
    monkeypatch.chdir(home)
    decided = Decisions(home / "r" / "decisions.csv")
    decided.make(Decision("photos/train/cold/t3.png", "relabel", "warm"))
    decided.make(Decision("photos/train/warm/t5.png", "drop"))
    decided.make(Decision("photos/val/warm/v1.png", "drop"))
    with monkeypatch.context() as patch:
        patch.setattr("subprocess.Popen", ForkedPopen)
        result = fix(home / "r", home / "out", budget="0", suspected=True, links=True)
    assert "normalization_mismatch" in result.remedied and "normalization_mismatch" not in result.by_hand
    edit = next(e for e in result.patch.edits if e.cause == "normalization_mismatch")  # type: ignore[union-attr]
    line = PROGRAM.splitlines().index(next(x for x in PROGRAM.splitlines() if x.startswith("val_tf"))) + 1
    assert (edit.file.name, edit.line) == ("train.py", line)
    assert result.run == home / "out" / "run" and (result.run / "final.safetensors").is_file()
    whole, clean = result.scores
    assert whole.before.n == 30 and clean.before.n == 29
    assert whole.before.value < 0.7 and whole.after.value > 0.85 and whole.gain.low > 0
    after = {k: v for k, v in tree(home).items() if k.split("/")[0] not in ("r", "out")}
    assert after == before, "the checkpoint of the retraining and all else stay out of the user's folder"
    rows = {r["path"]: r for r in csv.DictReader((home / "out" / "manifest.csv").open(newline=""))}
    assert len(rows) == 70
    assert rows["photos/train/cold/t3.png"]["label"] == "warm"
    assert rows["photos/train/warm/t5.png"]["split"] == rows["photos/val/warm/v1.png"]["split"] == LEFT_OUT
    assert len(list((home / "out" / "data" / "train" / "warm").iterdir())) == 20
    if shutil.which("patch"):
        command = ["patch", "-p1", "--dry-run", "-i", str(home / "out" / "fix.patch")]
        assert subprocess.run(command, cwd=home, check=False).returncode == 0
    from valgap.record.reader import read_record

    new = read_record(result.run)
    names = [new.sample_names[i] for i in new.passes[0].samples.sample.tolist()]
    assert len(names) == 39 and "photos/train/warm/t5.png" not in names
    place = names.index("photos/train/cold/t3.png")
    assert new.passes[0].samples.target[place] == 1
    with pytest.raises(ValgapError, match="nothing is overwritten"):
        fix(home / "r", home / "out")


def test_nothing_to_mend(home: Path, tmp_path: Path) -> None:
    (home / "r" / "decisions.csv").unlink(missing_ok=True)
    with pytest.raises(ValgapError, match="--suspected"):
        fix(home / "r", tmp_path / "out", budget="0")
    assert not (tmp_path / "out").exists()


RENUMBERED = PROGRAM.replace("val_tf = transforms.Compose([transforms.ToTensor()])", "val_tf = train_tf").replace(
    'val_set = datasets.ImageFolder("photos/val", val_tf)',
    """class Warmest(datasets.ImageFolder):
    def find_classes(self, folder):
        return ["warm", "cold"], {"warm": 0, "cold": 1}
val_set = Warmest("photos/val", val_tf)""",
)


def test_labels_that_validation_numbers_otherwise_are_counted_by_name(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").symlink_to(home / "photos")
    (tmp_path / "helper.py").write_text((home / "helper.py").read_text())
    (tmp_path / "train.py").write_text(RENUMBERED)
    done = forked(["-m", "valgap.cli", "run", "--out", "r", "train.py"], tmp_path)
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("subprocess.Popen", ForkedPopen)
        result = fix(tmp_path / "r", tmp_path / "out", budget="0", suspected=True, retrain=False)
    assert "class_index_mismatch" in result.remedied and "class_index_mismatch" in result.by_hand
    assert result.run is None
    (score,) = result.scores
    assert score.before.value < 0.3 and score.after.value == pytest.approx(1 - score.before.value)
    assert "class_index_mismatch" in (tmp_path / "out" / "edits.txt").read_text()


IN_MEMORY = """
import os, sys
import numpy as np, torch
from PIL import Image
from torch import nn

torch.manual_seed(0)
classes = sorted(os.listdir("photos/train"))


def read(split):
    folders = [(os.path.join("photos", split, name), i) for i, name in enumerate(classes)]
    files = [(os.path.join(folder, f), i) for folder, i in folders for f in sorted(os.listdir(folder))]
    images = [torch.from_numpy(np.array(Image.open(f))).permute(2, 0, 1) for f, _ in files]
    return (torch.stack(images).float() / 255 - 0.5) / 0.05, torch.tensor([y for _, y in files])


(x, y), (vx, vy) = read("train"), read("val")
net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
optimizer = torch.optim.Adam(net.parameters(), 0.02)
for epoch in range(3):
    net.train()
    for rows in torch.randperm(len(x)).split(10):
        loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right = summed = 0
    with torch.no_grad():
        for rows in torch.arange(len(vx)).split(10):
            scores = net(vx[rows])
            right += (scores.argmax(1) == vy[rows]).sum().item()
            summed += nn.functional.cross_entropy(scores, vy[rows], reduction="sum").item()
    print("val acc", right / len(vx), "loss", summed / len(vx))
"""


def test_before_and_after_of_images_that_a_program_keeps_in_memory(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").symlink_to(home / "photos")
    (tmp_path / "train.py").write_text(IN_MEMORY)
    done = forked(["-m", "valgap.cli", "run", "--out", "r", "train.py"], tmp_path)
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("subprocess.Popen", ForkedPopen)
        result = fix(tmp_path / "r", tmp_path / "out", budget="0", suspected=True)
    assert result.run is not None and "train_mode_at_validation" in result.remedied
    (score,) = result.scores
    assert score.before.n == score.after.n == 30


def test_plan_of_images(tmp_path: Path) -> None:
    run = record(tmp_path)
    names = run.sample_names
    one = diagnosis(run, ("DAT101", finding(subjects=(f"{names[200]} = {names[0]}", f"{names[201]} = {names[1]}"))))
    decided = {
        names[0]: Decision(names[0], "drop", cause="DAT104"),
        names[1]: Decision(names[1], "relabel", "cat"),
        names[2]: Decision(names[2], "unsure"),
        names[201]: Decision(names[201], "keep"),
    }
    rows = {r.path: r for r in plan_images(one, decided, ["DAT101"])}
    assert len(rows) == 300 == len(images_of(run))
    assert not rows[names[0]].kept and "DAT104" in rows[names[0]].reason
    assert (rows[names[1]].label, rows[names[1]].given) == ("cat", "bee")
    assert rows[names[2]].kept and not rows[names[2]].reason
    assert not rows[names[200]].kept and names[0] in rows[names[200]].reason
    assert rows[names[201]].kept, "somebody's decision counts first"
    assert all(r.kept for r in plan_images(one, {}, []))
    acts = data_interventions(run, list(rows.values()))
    assert [(a.name, a.settings["positions"]) for a in acts] == [("relabel_samples", [1]), ("drop_samples", [0])]
    assert acts[0].settings["targets"] == [2]
    with pytest.raises(FileExistsError):
        (tmp_path / "m.csv").write_text("mine")
        write_manifest(list(rows.values()), tmp_path / "m.csv")


def test_links_with_hostile_and_equal_names(tmp_path: Path) -> None:
    from valgap.fix.manifest import Row

    for name in ("a/x.png", "b/x.png", 'b/"q" <b>&\n😀.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    rows = [Row(n, "k", label, "train", True, "") for n in ("a/x.png", "b/x.png") for label in ("..",)]
    rows.append(Row('b/"q" <b>&\n😀.png', "k", "c/../../d", "val", True, ""))
    made = link_images(rows, tmp_path / "data", tmp_path)
    assert sorted(made.values()) == sorted(r.path for r in rows)
    for link, path in made.items():
        place = tmp_path / "data" / link
        assert place.resolve() == (tmp_path / path).resolve()
        assert len(Path(link).parts) == 3 and ".." not in Path(link).parts
    with pytest.raises(ValgapError, match="still there"):
        link_images([Row("gone.png", "k", "k", "val", True, "")], tmp_path / "other", tmp_path)


def test_scores_of_cleaned_validation(tmp_path: Path) -> None:
    from valgap.fix.manifest import Row

    before = {"a": (True, "ant"), "b": (False, "bee"), "c": (False, "bee"), "d": (True, "ant")}
    after = {"a": (True, "ant"), "b": (True, "ant"), "c": (False, "bee"), "d": (True, "ant"), "e": (True, "ant")}
    rows = [Row("c", "ant", "bee", "val", True, "relabelled"), Row("d", "ant", "ant", "val", False, "leak")]
    whole, clean = compare(before, after, rows)
    assert (whole.before.value, whole.after.value, whole.before.n) == (0.5, 0.75, 4)
    assert (clean.before.value, clean.after.value, clean.before.n) == (pytest.approx(2 / 3), 1.0, 3)
    assert [s.name for s in compare(before, after, [])] == ["the same validation images"]
    assert compare(before, {}, []) == []
    run = record(tmp_path)
    told = answers(replace(run, path="x"))
    assert sum(right for right, _ in told.values()) == int(run.passes[-1].samples.correct.sum())
    table = run.passes[-1].samples
    turned = {str(c): (c + 1) % 4 for c in range(3)}  # and train has no class 3
    counted = answers(run, targets=turned)
    right = [turned.get(str(t)) == p for t, p in zip(table.target.tolist(), table.prediction.tolist(), strict=True)]
    assert sum(r for r, _ in counted.values()) == sum(right)


def test_links_of_a_retraining_are_the_images_they_lead_to(tmp_path: Path) -> None:
    run = record(tmp_path)
    moved = tuple(f"out/data/{name}" for name in run.sample_names)
    again = replace(run, sample_names=moved)
    renamed = {str(tmp_path / link): name for link, name in zip(moved, run.sample_names, strict=True)}
    assert answers(again, renamed) == answers(run) and answers(again) != answers(run)


def test_options_of_an_earlier_training() -> None:
    argv = ["/bin/valgap", "train", "photos", "--epochs", "3", "--out", "runs/a", "--backbone=resnet50", "--seed", "1"]
    assert _options(argv) == ["--epochs", "3", "--backbone=resnet50", "--seed", "1"]


def test_what_re_runs_put_in_place_of_a_whole_stage_is_put_there_again() -> None:
    """Also where the cause has no treatment of its own; an edit is made from the cause's own settings alone."""
    check = replace(next(c for c in CATALOGUE if c.code == "STG602"), treat=lambda case, finding: Untreatable("none"))
    tried = Intervention("draw_all", {"phase": "train", "batch_size": 4})
    judged = Judged(check, Finding("", 20.0, 0.9, (), ""), verdict="confirmed", tried=tried)
    run = healthy().run
    assert program._share_out(run, [judged], set(), False) == ([tried], [check.name], [check.name])
    assert program._share_out(run, [replace(judged, tried=None)], set(), False) == ([], [], [check.name])
    assert program._share_out(run, [judged], {check.name}, False) == ([], [check.name], [])
    assert program.facts_of(run, judged) == {}
