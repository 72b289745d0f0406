"""Children: ended with all that they started when a call is cancelled or takes too long; their output held."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from valgap.agents import child
from valgap.errors import ValgapError
from valgap.record.reader import read_record

pytestmark = pytest.mark.takes(20)
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open("pids", "w").write(f"{os.getpid()} {other.pid} ")
time.sleep(600)
"""
ENDLESS = """
import itertools
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
data = TensorDataset(torch.randn(64, 3, 8, 8), torch.arange(64) % 2)
net = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
optimizer = torch.optim.SGD(net.parameters(), 0.01)
for epoch in itertools.count():
    for train in (True, False):
        net.train(train)
        for x, y in DataLoader(data, 8, shuffle=train):
            with torch.set_grad_enabled(train):
                loss = nn.functional.cross_entropy(net(x), y)
            if train:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    open("epochs", "w").write("x")
"""


async def silent(where: str) -> None:
    pass


def gone(pid: int) -> bool:
    """Whether no such process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_for(what: Callable[[], bool], most_s: float = 30.0) -> None:
    until = time.monotonic() + most_s
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)


async def cancelled(folder: Path, sign: str) -> None:
    """Start train.py, cancel the call once it has written the file ``sign``."""
    task = asyncio.create_task(child.call(["run", "--out", "r", "train.py"], folder, 600, silent, together=True))
    while not (folder / sign).is_file() or not (folder / sign).read_text():
        assert not task.done(), task.result()
        await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_cancelled_call_ends_the_group_however_stubborn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "INTERRUPT_S", 0.3)
    monkeypatch.setattr(child, "TERMINATE_S", 0.3)
    (tmp_path / "train.py").write_text(STUBBORN)
    asyncio.run(cancelled(tmp_path, "pids"))
    pids = [int(p) for p in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    wait_for(lambda: all(map(gone, pids)))


def test_a_cancelled_training_leaves_a_record(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(ENDLESS)
    asyncio.run(cancelled(tmp_path, "epochs"))

    def ended() -> bool:
        return read_record(tmp_path / "r").exit_status is not None

    wait_for(ended)
    run = read_record(tmp_path / "r")
    assert run.exit_status == 130 and run.of_phase("train") and run.of_phase("validation")


def test_a_call_that_takes_too_long_is_ended_and_its_output_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "MAX_LOOSE_BYTES", 200_000)
    (tmp_path / "train.py").write_text("while True:\n    print('loud ' * 20, flush=True)\n")
    told: list[str] = []

    async def tell(where: str) -> None:
        told.append(where)

    done = asyncio.run(child.call(["run", "--out", "r", "train.py"], tmp_path, 1.5, tell, together=True))
    assert done.ended_by == "time" and "loud" in done.out and len(done.out) <= child.TAIL_BYTES
    assert told == ["the script runs"] * 2


@pytest.mark.parametrize("word", ["a\0b", "\ud800"])
def test_what_is_no_argument_is_refused(tmp_path: Path, word: str) -> None:
    with pytest.raises(ValgapError, match="no command line takes"):
        asyncio.run(child.call(["run", "--out", "r", "train.py", word], tmp_path, 60, silent))
    assert list(tmp_path.iterdir()) == []


def test_the_reason_is_the_last_line_of_ours(tmp_path: Path) -> None:
    done = asyncio.run(child.call(["diagnose", "nowhere", "--json"], tmp_path, 60, silent))
    assert done.status == 2 and "nowhere is no run directory" in done.reason and done.out == ""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at /proc")
def test_a_killed_server_leaves_no_child(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(STUBBORN)
    code = (
        "import asyncio; from pathlib import Path; from tests.agents.test_child import silent; from valgap.agents import child;"
        "asyncio.run(child.call(['run', '--out', 'r', 'train.py'], Path.cwd(), 600, silent, together=True))"
    )
    places = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    server = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": places})
    wait_for(lambda: (tmp_path / "pids").is_file() and (tmp_path / "pids").read_text().endswith(" "))
    server.send_signal(signal.SIGKILL)
    server.wait()
    wait_for(lambda: all(gone(int(p)) for p in (tmp_path / "pids").read_text().split()))
