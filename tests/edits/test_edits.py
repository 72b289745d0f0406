"""Edits: a line taken out of a sound program comes back; a sound program stays; where there is doubt, nothing is edited."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from valgap.checks import CATALOGUE
from valgap.edits.patch import make_patch, program_files
from valgap.edits.remedies import EDITS
from valgap.edits.script import Script
from valgap.edits.snippets import SNIPPETS

HABITS = Path(__file__).parents[1] / "habits"
PLAIN = ("plain_loop", "functions", "argparse_tqdm", "csv_dataset", "multi_loss", "opencv_reader")
NORMALIZED = """
train_tf = T.Compose([T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize(mean, std)])
val_tf = T.Compose([T.Resize(8), T.ToTensor()])
"""


def edit(cause: str, source: str, **facts: object) -> str | None:
    return EDITS[cause](Script(source), facts)


def without(source: str, pattern: str) -> str:
    """The source without the statements that match; at least one must."""
    cut, count = re.subn(rf"^ *{pattern}\n", "", source, flags=re.M)
    assert count, pattern
    return cut


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize(
    ("cause", "line"),
    [
        ("train_mode_at_validation", r"[\w.]+\.eval\(\)"),
        ("eval_mode_at_training", r"[\w.]+\.train\(\)"),
        ("accumulated_gradients", r"[\w.]+\.zero_grad\([^)]*\)"),
    ],
)
def test_a_line_taken_out_comes_back(name: str, cause: str, line: str) -> None:
    sound = (HABITS / f"{name}.py").read_text()
    if not re.search(rf"^ *{line}\n", sound, re.M):
        pytest.skip(f"{name} has no such line of its own")
    broken = without(sound, line)
    if name == "multi_loss" and cause == "accumulated_gradients":
        assert edit(cause, sound) is None, "two optimizers: which one?"
        return
    new = edit(cause, broken)
    assert new is not None
    plain = [re.sub(r"[\w.]+\.zero_grad\(.*\)", "zero_grad()", text) for text in (new, sound)]
    assert sorted(plain[0].splitlines()) == sorted(plain[1].splitlines())


@pytest.mark.parametrize("name", PLAIN)
def test_a_sound_program_stays(name: str) -> None:
    sound = (HABITS / f"{name}.py").read_text()
    for cause in ("train_mode_at_validation", "eval_mode_at_training", "squashed_logits"):
        assert edit(cause, sound) in (None, sound), cause


def test_shuffle() -> None:
    loop = "{}\nfor x, y in dl:\n    loss = net(x)\n    loss.backward()\nnet.train()\n"
    for loader, expected in (
        ("dl = DataLoader(train, 8)", "dl = DataLoader(train, 8, shuffle=True)"),
        ("dl = DataLoader(train, batch_size=8, shuffle=False)", "dl = DataLoader(train, batch_size=8, shuffle=True)"),
        ("dl = D.DataLoader(\n    train,\n)", "dl = D.DataLoader(\n    train,\nshuffle=True)"),
    ):
        assert edit("unshuffled_training", loop.format(loader)) == loop.format(expected)
    assert edit("unshuffled_training", loop.format("dl = DataLoader(train, sampler=s)")) is None
    assert edit("unshuffled_training", loop.format("dl = make()")) is None


def test_normalize() -> None:
    assert "T.ToTensor(), T.Normalize(mean, std)])\nval_tf = T.Compose([T.Resize(8), T.ToTensor(), T.Normalize(mean, std)])" in (
        edit("normalization_mismatch", NORMALIZED) or ""
    )
    other = NORMALIZED.replace("T.ToTensor()])", "T.ToTensor(), T.Normalize(0.1, 0.2)])")
    assert (edit("normalization_mismatch", other) or "").count("T.Normalize(mean, std)") == 2
    named = "n = T.Normalize(1, 2)\na = T.Compose([T.RandomCrop(3), n])\nb = T.Compose([T.ToTensor()])\n"
    assert (edit("normalization_mismatch", named) or "").endswith("b = T.Compose([T.ToTensor(), n])\n")
    both = edit("normalization_mismatch", other, mean=[0.5, 0.25], std=[0.5, 1]) or ""
    assert both.count("T.Normalize([0.5, 0.25], [0.5, 1])") == 2
    doubtful = NORMALIZED + "test_tf = T.Compose([T.ToTensor()])\n"
    assert edit("normalization_mismatch", doubtful) is None, "two transforms without it: which one validates?"


def test_batchnorm_is_held_after_every_train() -> None:
    source = "import torch\nfor e in range(2):\n    net.train()\n    for x, y in dl:\n        net(x).backward()\n"
    new = edit("batchnorm_drift", source) or ""
    assert new.index("net.train()") < new.index("for module in net.modules()") < new.index("for x, y in dl")
    assert edit("batchnorm_drift", source.replace("import torch\n", "")) is None
    conditional = source.replace("net.train()", "net.train() if e else net.eval()\n    net.head.train()")
    held = edit("batchnorm_drift", conditional) or ""
    assert held.index("net.head.train()") < held.index("for module in net.modules()") < held.index("for x, y in dl")
    early = source.replace("    net.train()\n", "").replace("for e", "net.train()\nfor e")
    assert (edit("batchnorm_drift", early) or "").count("for module in net.modules()") == 1
    elsewhere = "import torch\ndef begin(net, on):\n    return net.train() if on else net.eval()\n"
    assert edit("batchnorm_drift", elsewhere + source.replace("    net.train()\n", "    begin(net, e)\n")) is None


def test_softmax_between_network_and_loss() -> None:
    forward = "class Net(nn.Module):\n    def forward(self, x):\n        return F.softmax(self.fc(x), dim=1)\n"
    assert edit("squashed_logits", forward) == forward.replace("F.softmax(self.fc(x), dim=1)", "self.fc(x)")
    loss = "loss = criterion(model(x).softmax(1), y)\n"
    assert edit("squashed_logits", loss) == "loss = criterion(model(x), y)\n"
    layers = "net = nn.Sequential(nn.Linear(2, 2), nn.Softmax(dim=1))\n"
    assert edit("squashed_logits", layers) == "net = nn.Sequential(nn.Linear(2, 2), nn.Identity())\n"
    assert edit("squashed_logits", "p = model(x).softmax(1)\n") is None, "shown only"
    assert edit("squashed_logits", forward + loss) is None, "two places"


def test_rate_and_class_map() -> None:
    rate = "optimizer = optim.SGD(net.parameters(), lr=0.5, momentum=0.9)\n"
    assert edit("learning_rate_too_high", rate, factor=0.1) == rate.replace("0.5", "0.05")
    assert edit("learning_rate_too_high", rate.replace("0.5", "args.lr"), factor=0.1) is None
    maps = "train_set = ImageFolder('a/train')\nval_set = ImageFolder('a/val')\n"
    assert edit("class_index_mismatch", maps) is None, "where the maps agree it would change nothing"
    new = edit("class_index_mismatch", maps, mapping={"0": 1, "1": 2}) or ""

    class Folder:
        def __init__(self, path: str) -> None:
            self.classes = ["ant", "bee", "cat"] if "train" in path else ["bee", "cat"]
            self.class_to_idx = {name: i for i, name in enumerate(self.classes)}
            self.samples = [(f"{name}.jpg", i) for i, name in enumerate(self.classes)]

    names: dict[str, object] = {"ImageFolder": Folder}
    exec(new, names)
    assert names["val_set"].samples == [("bee.jpg", 1), ("cat.jpg", 2)]  # type: ignore[attr-defined]
    assert names["val_set"].targets == [1, 2]  # type: ignore[attr-defined]
    # What is done to training's labels after the maps is undone by numbers; done to validation's, it would undo the edit.
    new = edit("class_index_mismatch", maps, mapping={"0": 2, "1": 0}, renamed_by="train") or ""
    exec(new, names)
    assert names["val_set"].samples == [("bee.jpg", 2), ("cat.jpg", 0)]  # type: ignore[attr-defined]
    assert edit("class_index_mismatch", maps, mapping={"0": 2, "1": 0}, renamed_by="val") is None


def test_patch_of_a_program_in_several_files(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("import torch\nfrom engine import fit\nfrom pkg.data import make\nfit(make())\n")
    (tmp_path / "engine.py").write_text(
        "def fit(model, dl, opt):\n    for x, y in dl:\n        model(x).backward()\n        opt.step()\n    model.train()\n"
        "def test(model, dl):\n    return [model(x) for x, y in dl]\n"
    )
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "data.py").write_text("# ü\ndef make(): pass\n", encoding="utf-8")
    files = program_files(tmp_path / "train.py")
    assert [f.name for f in files] == ["train.py", "engine.py", "data.py"]
    before = {f: f.read_text() for f in files}
    patch = make_patch(files, [("accumulated_gradients", {}), ("eval_mode_at_training", {}), ("degraded_images", {})])
    assert {f: f.read_text() for f in files} == before, "the files themselves stay"
    assert [(e.cause, e.file.name, e.line, e.new.strip()) for e in patch.edits] == [
        ("accumulated_gradients", "engine.py", 3, "opt.zero_grad()"),
        ("eval_mode_at_training", "engine.py", 2, "model.train()"),
    ]
    assert patch.left == ("degraded_images",)
    text = patch.diff(tmp_path)
    assert text.startswith("--- a/engine.py\n+++ b/engine.py\n@@") and "+        opt.zero_grad()" in text


def test_no_python_and_no_place() -> None:
    assert make_patch([Path("/not/there.py")], [("batchnorm_drift", {})]).left == ("batchnorm_drift",)


def test_snippets_are_python_and_named_after_causes() -> None:
    known = {c.name for c in CATALOGUE}
    for name, code in SNIPPETS.items():
        compile(textwrap.dedent(code).replace("[..., ", "["), name, "exec")
    assert set(EDITS) <= set(SNIPPETS) | {"learning_rate_too_high", "learning_rate_too_low"}
    assert {"batchnorm_drift", "normalization_mismatch", "train_mode_at_validation"} <= known & set(SNIPPETS)
