"""`valgap run --live`: warnings while a script runs, an end after them, and a script that feels nothing of it."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import valgap
from tests.processes import ForkedPopen, forked, fresh
from tests.ranks.test_ranks import free_port
from valgap.errors import StoppedOnWarning, SuspectedWarning, ValgapError
from valgap.live.judging import warnings_of
from valgap.record.location import LIVE
from valgap.record.reader import read_record
from valgap.record.told import told

pytestmark = pytest.mark.takes(25)
PROGRAM = Path(__file__).with_name("program.py")
RANKS = Path(__file__).with_name("program_of_ranks.py")
WAITS_S = 60.0


def run(folder: Path, options: list[str], *how: str) -> subprocess.CompletedProcess[str]:
    out = folder / "run"
    command = ["-m", "valgap.cli", "run", *options, "--closing", "0", "--out", out, PROGRAM, out, *how]
    return forked([str(c) for c in command], folder, {"VALGAP_LIVE_NICE": "0"})


def wait_for(file: Path) -> None:
    until = time.monotonic() + WAITS_S
    while not file.exists() and time.monotonic() < until:
        time.sleep(0.05)


def judges(folder: Path) -> list[str]:
    """The processes that judge this run."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = place.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if "valgap.live.follower" in line and str(folder) in line:
            found.append(line)
    return found


def test_a_fault_is_told_in_the_first_epoch_and_the_script_feels_nothing(tmp_path: Path) -> None:
    watched, bare = tmp_path / "watched", tmp_path / "bare"
    for folder in (watched, bare):
        folder.mkdir()
    done = run(watched, ["--live"], "no_eval", "no_head", "wait")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (watched / "run" / LIVE).read_text().splitlines()]
    first = next(line for line in lines if line["code"] == "EVA501")
    assert first["epoch"] == 1 and first["stage"] == "forward" and first["confidence"] >= 0.5
    assert first["what"] and first["remedy"] and "BatchNorm layers in training mode" in first["why"][0]
    assert "MOD303" in {line["code"] for line in lines}
    assert len({line["code"] for line in lines}) == len(lines), "each cause is told once"
    assert done.stderr.count("valgap: warning after epoch 1: EVA501 train_mode_at_validation") == 1
    assert not any("warning after" in n.line for n in read_record(watched / "run").printed), "our lines are not the script's"

    plain = forked([PROGRAM, bare / "run", "no_eval", "no_head"], bare)
    assert plain.returncode == 0 and plain.stdout == done.stdout, "losses, weights and the next random number, to the last bit"
    until = time.monotonic() + WAITS_S
    while judges(watched) and time.monotonic() < until:
        time.sleep(0.1)
    assert judges(watched) == []


def test_of_a_healthy_script_nothing_is_told(tmp_path: Path) -> None:
    done = run(tmp_path, ["--live"], "")
    assert done.returncode == 0 and "warning" not in done.stderr
    assert not (tmp_path / "run" / LIVE).exists()
    events = (tmp_path / "run" / "events.jsonl").read_bytes().splitlines(keepends=True)
    ends = [i for i, line in enumerate(events) if b'"t":"pass_end"' in line[:20] or b'"t":"part"' in line[:20]]
    assert len(ends) == 9, "the first batches, and four epochs"
    for number in ends:  # whenever it had been asked
        cut = tmp_path / f"cut{number}"
        cut.mkdir()
        (cut / "events.jsonl").write_bytes(b"".join(events[: number + 1]))
        assert warnings_of(cut) == []


def test_a_script_that_is_killed_in_its_third_epoch_had_its_warning_in_the_first(tmp_path: Path) -> None:
    done = run(tmp_path, ["--live"], "no_eval", "wait", "dies_late")
    assert done.returncode == -9
    (warning,) = told(tmp_path / "run")
    assert (warning.code, warning.epoch) == ("EVA501", 1)
    assert "warning after epoch 1: EVA501" in done.stderr


def test_what_a_script_had_shown_when_it_was_killed_is_still_judged(tmp_path: Path) -> None:
    done = run(tmp_path, ["--live"], "no_eval", "dies_early")
    assert done.returncode == -9
    wait_for(tmp_path / "run" / LIVE)
    assert [w.code for w in told(tmp_path / "run")] == ["EVA501"]


@pytest.mark.parametrize("how", ["saves", "ends"])
def test_stop_on_ends_the_script_as_ctrl_c_does_with_a_status_of_its_own(how: str, tmp_path: Path) -> None:
    done = run(tmp_path, ["--stop-on", "suspected"], "no_eval", "wait", how)
    assert done.returncode == 5, done.stderr
    assert "Traceback" not in done.stderr and "--stop-on" in done.stderr
    assert ("saved on the interrupt" in done.stdout) == (how == "saves")
    assert "epoch 0" in done.stdout and "epoch 2" not in done.stdout
    record = read_record(tmp_path / "run")
    assert record.exit_status == 5 and record.stopped is None, "the record has its end"


def test_stop_on_takes_one_word(tmp_path: Path) -> None:
    done = run(tmp_path, ["--stop-on", "confirmed"], "")
    assert done.returncode == 2 and "--stop-on takes suspected" in done.stderr


def squash(warning: Path, epochs: int) -> None:
    """A training with a softmax before cross_entropy; after its first epoch it waits for the warning."""
    images = torch.nn.functional.interpolate(torch.randn(64, 3, 3, 3, generator=torch.Generator().manual_seed(0)), 8)
    data = TensorDataset(images, torch.arange(64) % 2)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2), torch.nn.Softmax(1))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for epoch in range(epochs):
        for x, y in DataLoader(data, 4, shuffle=True):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
        if epoch == 0:
            wait_for(warning)
            time.sleep(0.4)


def test_watch_gives_warnings_as_python_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VALGAP_LIVE_NICE", "0")
    out = tmp_path / "run"
    with pytest.warns(SuspectedWarning, match="MOD306 squashed_logits") as caught, valgap.watch(out, closing=0, live=True):
        squash(out / LIVE, 2)
    assert len(caught) == 1
    assert read_record(out).recorder_errors == () and read_record(out).exit_status == 0


@pytest.mark.parametrize("handler", [signal.default_int_handler, "own"])
def test_watch_ends_its_block_after_a_warning(handler: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VALGAP_LIVE_NICE", "0")
    out, own = tmp_path / "run", []
    before = signal.signal(signal.SIGINT, (lambda *_: own.append(1)) if handler == "own" else handler)
    ends = contextlib.nullcontext() if handler == "own" else pytest.raises(StoppedOnWarning, match="after the warning MOD306")
    try:
        with pytest.warns(SuspectedWarning), ends, valgap.watch(out, stop_on="suspected"):
            squash(out / LIVE, 4)
    finally:
        signal.signal(signal.SIGINT, before)
    record = read_record(out)
    assert record.exit_status == 5 and record.stopped is None and record.closing is None
    assert len(record.passes) == (4 if handler == "own" else 1), "a handler of the program's own decides"
    assert own == ([1] if handler == "own" else [])


def test_watch_stops_on_one_word(tmp_path: Path) -> None:
    with pytest.raises(ValgapError, match="stop_on takes 'suspected'"), valgap.watch(tmp_path / "run", stop_on="confirmed"):
        pass
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("launcher", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_ranks_are_warned_once_and_ended_together(launcher: bool, tmp_path: Path) -> None:
    """``launcher``: started by torchrun; else forked, with the variables that it sets."""
    command = ["-m", "valgap", "run", "--stop-on", "suspected", "--closing", "0", "--out", tmp_path / "r", RANKS]
    command, port = [*command, tmp_path / "r" / LIVE], free_port()
    if launcher:
        done = fresh(["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port, *command], tmp_path)
        assert done.returncode != 0 and "exitcode  : 5" in done.stderr, done.stderr[-3000:]
        printed = done.stdout + done.stderr
    else:
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        with (tmp_path / "output.txt").open("wb") as output:
            ranks = [
                ForkedPopen([sys.executable, *command], output, env={**group, "RANK": rank, "LOCAL_RANK": rank}, cwd=tmp_path)
                for rank in ("0", "1")
            ]
        statuses = [one.wait(300) for one in ranks]
        printed = (tmp_path / "output.txt").read_text()
        assert statuses[0] == 5 and statuses[1] != 0, printed  # the other one loses its connection: nobody ends it but torchrun
    assert printed.count("valgap: warning") == printed.count("valgap: warning after epoch 1: EVA501") == 1
    assert [w.code for w in told(tmp_path / "r")] == ["EVA501"]
    assert "epoch 0" in printed and "epoch 2" not in printed
    record = read_record(tmp_path / "r")
    assert record.exit_status == 5 and record.passes[0].processes == record.passes[1].processes == 2
