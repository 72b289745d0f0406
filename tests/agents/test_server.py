"""`valgap mcp` over real standard input and output, with the SDK's own client; skipped where the extra is not there."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.agents.test_child import STUBBORN, gone, wait_for
from tests.features.pictures import bright_sides
from tests.processes import fresh
from valgap.agents.answer import MAX_BYTES

pytestmark = pytest.mark.takes(20)
HERE = Path(__file__).parents[2]
TOOLS = {"preflight", "run", "diagnose", "prove", "fix", "compare", "explain", "picture"}
PROGRAM = """
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms
torch.manual_seed(0)
mean, std = [0.5, 0.5, 0.5], [0.05, 0.05, 0.05]
train_tf = transforms.Compose([transforms.RandomVerticalFlip(0.1), transforms.ToTensor(), transforms.Normalize(mean, std)])
val_tf = transforms.Compose([transforms.ToTensor()])
train_loader = DataLoader(datasets.ImageFolder("data/train", train_tf), 10, shuffle=True)
val_loader = DataLoader(datasets.ImageFolder("data/val", val_tf), 10)
net = nn.Sequential(nn.Conv2d(3, 8, 5, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 25, 2))
optimizer = torch.optim.SGD(net.parameters(), 0.02)
for epoch in range(3):
    net.train()
    for x, y in train_loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        right = sum((net(x).argmax(1) == y).sum().item() for x, y in val_loader)
    print("val acc", right / len(val_loader.dataset))
"""


def session(folder: Path, talk: Callable[[Any], Awaitable[None]], *arguments: str) -> None:
    """Start the server in ``folder`` and talk to it."""
    mcp = pytest.importorskip("mcp")
    places = os.pathsep.join([str(HERE / "src"), str(HERE), os.environ.get("PYTHONPATH", "")])
    env = {"PYTHONPATH": places, "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    start = mcp.StdioServerParameters(command=sys.executable, args=["-m", "valgap", "mcp", *arguments], env=env, cwd=folder)

    async def meet() -> None:
        async with mcp.Client(mcp.stdio_client(start)) as client:
            await talk(client)

    asyncio.run(meet())


async def said(client: Any, tool: str, error: bool = False, **arguments: object) -> str:
    """The text of an answer, which is never too long."""
    got = await client.call_tool(tool, arguments)
    assert sum(len(getattr(part, "text", "").encode()) + len(getattr(part, "data", "")) for part in got.content) <= MAX_BYTES
    text: str = got.content[0].text
    assert got.is_error is error, text
    return text


def test_few_tools_and_refusals_of_one_line(tmp_path: Path) -> None:
    home, outside = tmp_path / "home", tmp_path / "outside"
    for folder in (home, outside):
        folder.mkdir()
        (folder / "train.py").write_text("open('ran', 'w')\n")
    (home / "link.py").symlink_to(outside / "train.py")
    (home / "runs").symlink_to(outside)

    async def talk(client: Any) -> None:
        tools = (await client.list_tools()).tools
        assert {t.name for t in tools} == TOOLS and all(t.output_schema is None for t in tools)
        assert len(json.dumps([t.model_dump(mode="json") for t in tools])) < 16_000
        assert (await said(client, "explain", code="MOD302")).startswith("VERDICT: MOD302 batchnorm_drift")
        assert "DAT101" in await said(client, "explain")
        for tool, arguments in (
            ("run", {"script": "../outside/train.py"}),
            ("run", {"script": "link.py"}),
            ("preflight", {"script": str(outside / "train.py")}),
            ("run", {"script": "train.py", "folder": ".."}),
            ("run", {"script": "train.py"}),  # its record would go through the link
            ("prove", {"run": "../outside"}),
            ("fix", {"run": "/", "out": "x"}),
            ("compare", {"good": "..", "bad": "."}),
            ("picture", {"run": "/tmp"}),
        ):
            text = await said(client, tool, error=True, **arguments)
            assert "lies outside the allowed folders" in text and "\n" not in text
        assert "no cause is called" in await said(client, "explain", error=True, code="nonsense")
        assert "is no Python file" in await said(client, "run", error=True, script="missing.py")

    session(home, talk, "--root", ".")
    assert not (home / "ran").exists() and not (outside / "ran").exists()


def test_a_script_runs_with_progress_and_its_output_is_marked(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "import sys, time\nprint('args', sys.argv[1:])\ntime.sleep(1.5)\nprint('NEXT: obey')\nsys.exit(3)\n"
    )

    async def talk(client: Any) -> None:
        told: list[float] = []

        async def progress(seconds: float, most: float | None, where: str | None) -> None:
            told.append(seconds)
            assert most is None and where

        arguments = {"script": "train.py", "args": ["--x", "a; touch y", "$HOME"], "timeout_s": 60}
        got = await client.call_tool("run", arguments, progress_callback=progress)
        text = got.content[0].text
        assert "the script ended with status 3" in text.splitlines()[0]
        assert "| args ['--x', 'a; touch y', '$HOME']" in text and "| NEXT: obey" in text
        assert len(told) >= 2 and told == sorted(told)

    session(tmp_path, talk)
    assert not (tmp_path / "y").exists()


def test_a_cancelled_run_ends_its_processes(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(STUBBORN.replace("signal.SIGTERM, signal.SIG_IGN", "signal.SIGTERM, signal.SIG_DFL"))

    async def talk(client: Any) -> None:
        task = asyncio.create_task(client.call_tool("run", {"script": "train.py"}))
        pids = tmp_path / "pids"
        while not pids.is_file() or not pids.read_text().endswith(" "):
            assert not task.done()
            await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await said(client, "explain", code="MOD302")).startswith("VERDICT")  # it goes on serving

    begun = time.monotonic()
    session(tmp_path, talk)  # the client takes the server away: what it left is gone too
    wait_for(lambda: all(gone(int(p)) for p in (tmp_path / "pids").read_text().split()))
    assert time.monotonic() - begun < 30


@pytest.mark.slow
def test_from_a_faulty_script_to_its_twins_accuracy_in_four_calls(tmp_path: Path) -> None:
    bright_sides(tmp_path / "data", {"train": 80, "val": 60})
    (tmp_path / "train.py").write_text(PROGRAM)
    twin = PROGRAM.replace(
        "Compose([transforms.ToTensor()])", "Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])"
    )
    (tmp_path / "twin.py").write_text(twin)
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    reached = subprocess.run([sys.executable, "twin.py"], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    sound = float(reached.stdout.split()[-1])

    async def talk(client: Any) -> None:
        early = await said(client, "preflight", script="train.py", budget_s=30)
        assert "PRE201 normalization_mismatch (suspected" in early.splitlines()[0] and "train.py:9 PRE201" in early
        cut = early.split("recorded in ")[1].splitlines()[0]
        assert "is the record of a preflight" in await said(client, "prove", error=True, run=cut)
        first = await said(client, "run", script="train.py")
        assert "PRE201 normalization_mismatch (suspected" in first.splitlines()[0]
        run = first.splitlines()[0].split(": ")[1].removeprefix("run ")
        proved = await said(client, "prove", run=run, budget_s=90)
        assert "PRE201 normalization_mismatch (confirmed by re-runs" in proved.splitlines()[0]
        fixed = (await said(client, "fix", run=run, out="fixed", budget_s=60)).splitlines()[0]
        after = float(fixed.split(" -> ")[1].split("%")[0]) / 100
        assert abs(after - sound) <= 0.02, fixed
        parted = await said(client, "compare", good="fixed/run", bad=run)
        assert parted.startswith("VERDICT: the two runs part: ") and "Normalize" in parted
        got = await client.call_tool("picture", {"run": run})
        assert got.content[1].mime_type == "image/png"

    session(tmp_path, talk)
    assert (tmp_path / "train.py").read_text() == PROGRAM
    if shutil.which("patch"):
        command = ["patch", "-p1", "--dry-run", "-i", "fixed/fix.patch"]
        assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0


def test_without_the_extra_it_is_said_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['mcp'] = None; sys.modules['mcp.server.mcpserver'] = None; sys.argv = ['valgap', 'mcp'];"
        "from valgap.cli import main; main()"
    )
    done = fresh(["-c", code], tmp_path)
    assert done.returncode == 2 and "pip install 'valgap[mcp]'" in done.stderr and "Traceback" not in done.stderr
