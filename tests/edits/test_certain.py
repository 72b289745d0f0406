"""What a source shows for certain: each mistake at its line, and nothing in sound programs of many styles."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from valgap.edits.certain import GRAPH_KEPT, SCHEDULE_FIRST, certain_places

ROOT = Path(__file__).parents[2]
SOUND = [
    *sorted((ROOT / "tests" / "habits").glob("*.py")),
    *sorted((ROOT / "examples").glob("*.py")),
    *sorted((ROOT / "benchmarks" / "threads").glob("*/sound.py")),
]
LOOP = """
import torch
import torch.nn.functional as F
from torch import nn

net = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(12, 3))
opt = torch.optim.SGD(net.parameters(), 0.1)
schedule = torch.optim.lr_scheduler.StepLR(opt, 1)
criterion = nn.CrossEntropyLoss()
for epoch in range(9):
    net.train()
    total = 0.0
    for x, y in train_loader:
        opt.zero_grad()
        out = net(x)
        loss = criterion(out, y)
        loss.backward()
        opt.step()
        total += loss.item()
    schedule.step()
    net.eval()
    with torch.no_grad():
        for x, y in val_loader:
            right = (net(x).argmax(1) == y).sum()
"""
LOSS = "        loss = criterion(out, y)"
TOTAL = "        total += loss.item()\n"
# What is changed -> (cause, a word of the line that is named).
MISTAKES = {
    "softmax in between": ((LOSS, "        p = out.softmax(1)\n        loss = criterion(p, y)"), "squashed_logits", "softmax"),
    "softmax in place": (("criterion(out, y)", "F.cross_entropy(F.softmax(out, dim=1), y)"), "squashed_logits", "F.softmax"),
    "never cleared": (("        opt.zero_grad()\n", ""), "accumulated_gradients", "opt.step"),
    "step outside": ((f"        opt.step()\n{TOTAL}", f"{TOTAL}    opt.step()\n"), "wrong_step_count", "opt.step"),
    "never in eval mode": (("    net.eval()\n", ""), "train_mode_at_validation", "for x, y in val_loader"),
    "schedule first": (("    schedule.step()\n    net.eval()", "    net.eval()"), SCHEDULE_FIRST, "schedule.step"),
    "graphs kept": (("loss.item()", "loss"), GRAPH_KEPT, "total += loss"),
    "graphs kept by images": (("loss.item()", "loss * len(x)"), GRAPH_KEPT, "total += loss"),
}
NEAR_MISSES = {
    "log-softmax": ("criterion(out, y)", "criterion(out.log_softmax(1), y)"),
    "softmax for showing": ("        loss.backward()", "        shown = out.softmax(1)\n        loss.backward()"),
    "softmax before another loss": ("criterion(out, y)", "F.nll_loss(out.softmax(1).log(), y)"),
    "a name that is set again": (LOSS, "        p = out.softmax(1)\n        p = out\n        loss = criterion(p, y)"),
    "cleared by the model": ("opt.zero_grad()", "net.zero_grad()"),
    "cleared by hand": ("        opt.zero_grad()\n", "        for p in net.parameters():\n            p.grad = None\n"),
    "a loss of parts": ("        loss.backward()", "        both = 0.0\n        both += loss\n        both.backward()"),
    "eval by train": ("net.eval()", "net.train(False)"),
    "detached": ("loss.item()", "loss.detach()"),
}


def places(tmp_path: Path, source: str) -> list[tuple[str, str]]:
    file = tmp_path / "train.py"
    file.write_text(textwrap.dedent(source))
    found = certain_places([file])
    lines = file.read_text().splitlines()
    assert all(lines[p.line - 1].strip() == p.text for p in found)
    return [(p.cause, p.text) for p in found]


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_is_told_at_its_line(tmp_path: Path, name: str) -> None:
    (old, new), cause, word = MISTAKES[name]
    assert old in LOOP
    source = LOOP.replace(old, new)
    if name == "schedule first":
        source = source.replace("    net.train()\n", "    schedule.step()\n    net.train()\n")
    found = places(tmp_path, source)
    assert [c for c, _ in found] == [cause]
    assert word in found[0][1]


def test_the_sound_loop_has_none(tmp_path: Path) -> None:
    assert places(tmp_path, LOOP) == []


@pytest.mark.parametrize("name", NEAR_MISSES)
def test_what_only_looks_like_it_is_left_alone(tmp_path: Path, name: str) -> None:
    old, new = NEAR_MISSES[name]
    assert old in LOOP
    assert places(tmp_path, LOOP.replace(old, new)) == []


@pytest.mark.parametrize("file", SOUND, ids=lambda f: f"{f.parent.name}-{f.stem}")
def test_sound_programs_of_many_styles_have_none(file: Path) -> None:
    assert certain_places([file]) == ()


def test_what_clears_gradients_may_stand_in_another_file(tmp_path: Path) -> None:
    main, other = tmp_path / "train.py", tmp_path / "steps.py"
    main.write_text(LOOP.replace("        opt.zero_grad()\n", "        clear(opt)\n"))
    other.write_text("def clear(opt):\n    opt.zero_grad()\n")
    assert certain_places([main, other]) == ()


def test_a_file_that_is_no_python_is_left_out(tmp_path: Path) -> None:
    assert places(tmp_path, "for x in") == []
