"""README and docs: their commands and Python blocks run, their links lead somewhere, the causes' pages are current.

A block under ``<!-- not run: REASON -->`` is left out; with ``<!-- not run [A, B]: REASON -->`` only its lines that hold A or B
are. Everything else runs on tiny made-up images in a folder of its own, a file's blocks one after the other.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms
from typer.testing import CliRunner

import valgap
import valgap.cli
from tests.features.pictures import photo_folder, scene
from tests.processes import forked

pytestmark = pytest.mark.takes(10)
ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(
    r"(?:<!-- not run(?: \[(?P<words>[^\]]*)\])?: (?P<reason>[^\n]+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)```", re.S
)
# What a command block may hold beside valgap; it changes the environment or the repository, and does not run here.
OTHERS = ("pip install ", "make ", "torchrun ")
SCRIPT = """
import argparse
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=1)
parser.add_argument("--lr", type=float, default=1e-2)
args = parser.parse_args()
prepare = transforms.Compose([transforms.Resize((16, 16)), transforms.ToTensor()])
train, val = (datasets.ImageFolder("photos/" + split, prepare) for split in ("train", "val"))
net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2))
optimizer = torch.optim.SGD(net.parameters(), args.lr)
for _ in range(min(args.epochs, 2)):
    net.train()
    for images, labels in DataLoader(train, 8, shuffle=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        right = sum((net(images).argmax(1) == labels).sum().item() for images, labels in DataLoader(val, 8))
    print("val acc", right / len(val))
"""


@dataclass(frozen=True)
class Block:
    """One fenced block; ``skipped`` holds the words whose lines do not run, and is None where all run."""

    page: Path
    line: int
    language: str
    text: str
    skipped: tuple[str, ...] | None

    @property
    def commands(self) -> list[str]:
        """The command lines of the block; empty where it shows something else."""
        lines = [line for line in self.text.splitlines() if line.strip()]
        is_commands = self.language in ("", "sh") and any(line.startswith(("valgap ", *OTHERS)) for line in lines)
        return lines if is_commands else []


def blocks(page: Path) -> list[Block]:
    """The blocks of a page that are to run."""
    text, found = page.read_text(), []
    for match in FENCE.finditer(text):
        if match["reason"] and match["words"] is None:
            continue
        words = tuple(re.split(r", ", match["words"])) if match["words"] else None
        found.append(Block(page, text[: match.start()].count("\n") + 1, match["language"], match["text"], words))
    return [b for b in found if b.commands or b.language == "python"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with all that the pages speak of: photographs, a script, a list, two runs and a training."""
    root = tmp_path_factory.mktemp("world")
    photo_folder(root / "photos", train=12, val=6)
    (root / "data").symlink_to("photos")
    (root / "more").symlink_to("photos/val")
    (root / "more_photos").mkdir()
    for number in range(2):
        scene(number, 64).save(root / "more_photos" / f"{number}.jpg")
    scene(9, 64).save(root / "new_photo.jpg")
    rows = [f"photos/{s}/{k}/{i}.png,{k},{s}" for s in ("train", "val") for k in ("blobs", "stripes") for i in range(6)]
    (root / "list.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    (root / "train.py").write_text(SCRIPT)
    (root / "package").mkdir()
    (root / "package" / "train.py").write_text(SCRIPT)
    for name in ("first", "second"):
        done = forked(["-m", "valgap.cli", "run", "--closing", "0", "--out", f"runs/{name}", "train.py", "--epochs", "2"], root)
        assert done.returncode == 0, done.stderr
    (root / "runs" / "last").symlink_to("second")
    return root


def train() -> None:
    """What the pages call "build, train and validate as ever"."""
    prepare = transforms.Compose([transforms.Resize((16, 16)), transforms.ToTensor()])
    images, val = (datasets.ImageFolder(f"photos/{split}", prepare) for split in ("train", "val"))
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2))
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    for x, y in DataLoader(images, 8, shuffle=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        for x, _ in DataLoader(val, 8):
            net(x)


def run_command(line: str, cwd: Path) -> None:
    """One line of a command block; a recording runs in a process of its own, the rest in this one."""
    words = shlex.split(line, comments=True)
    if words[1] == "run":
        done = forked(["-m", "valgap.cli", *words[1:]], cwd)
        assert done.returncode == 0, (line, done.stderr)
        return
    result = CliRunner().invoke(valgap.cli.app, words[1:])
    allowed = (0, 1) if "--fail-on" in words else (0,)
    assert result.exit_code in allowed and isinstance(result.exception, (SystemExit, type(None))), (
        line,
        result.output,
        result.exception,
    )


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: p.name)
def test_blocks_run(page: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "world"
    shutil.copytree(world, root, symlinks=True)
    monkeypatch.chdir(root)
    names: dict[str, Any] = {"__name__": "docs", "train": train}
    for block in blocks(page):
        if block.language == "python":
            exec(compile(block.text, f"{page.name}:{block.line}", "exec"), names)
            continue
        for line in block.commands:
            if line.startswith("valgap ") and not any(word in line for word in block.skipped or ()):
                run_command(line, root)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_what_does_not_run_says_why(page: Path) -> None:
    """Every comment stands right above a block, and every word in it leaves out a line there."""
    text = page.read_text()
    assert text.count("<!-- not run") == len([m for m in FENCE.finditer(text) if m["reason"]])
    for block in blocks(page):
        for line in block.commands:
            assert line.startswith(("valgap ", *OTHERS)), f"{page.name}:{block.line}: what is {line!r}?"
        for word in block.skipped or ():
            assert any(word in line for line in block.commands), f"{page.name}:{block.line}: no line holds {word!r}"


def test_every_command_is_in_the_docs() -> None:
    """A command that no page shows is one that nobody finds."""
    import typer.main

    shown = "\n".join(p.read_text() for p in PAGES)
    commands = typer.main.get_command(valgap.cli.app).commands  # type: ignore[attr-defined]
    assert [name for name in commands if f"valgap {name}" not in shown] == []


def headings(page: Path) -> set[str]:
    """The anchors of a page, as code hosts and the site make them."""
    found = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in found}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "docs" / "causes" / "index.md"], ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", page.read_text(), flags=re.S)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and anchor not in headings(file)):
            broken.append(target)
    assert broken == []


def test_pages_of_causes_are_current_and_say_what_explain_says(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("generate_causes", ROOT / "docs" / "generate_causes.py")
    assert spec is not None and spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    spec.loader.exec_module(generate)
    assert generate.stale() == [], "run `make docs`"
    from valgap.checks import CATALOGUE

    for check in CATALOGUE:
        text = generate.page(check)
        bare = re.sub(r"\[([A-Z]{3}\d{3})\]\(\1\.md\)", r"\1", text)
        assert all(line.strip() in bare for line in check.doc.strip().splitlines())
        assert set(re.findall(r"\]\((\w+)\.md\)", text)) - {"index"} <= {c.code for c in CATALOGUE} - {check.code}
    from valgap.checks.data.class_imbalance import RATIO

    told = (generate.FOLDER / "thresholds.md").read_text()
    assert f"| class_imbalance | `RATIO` | `{RATIO}` | Largest class over smallest." in told


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="the extra docs is not installed")
def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = {str(p.relative_to(tmp_path / "site")) for p in (tmp_path / "site").rglob("*.html")}
    assert {"index.html", "my_script.html", "my_folder.html", "ci.html", "causes/MOD302.html", "api.html", "faq.html"} <= pages
    loaded = re.compile(
        r"<(?:script|img|iframe)[^>]+src=[\"']?(?:https?:)?//|<link[^>]+rel=[\"']?stylesheet[^>]+href=[\"']?https?:"
    )
    assert [p for p in pages if loaded.search((tmp_path / "site" / p).read_text())] == []
    assert "watch" in (tmp_path / "site" / "api.html").read_text()
