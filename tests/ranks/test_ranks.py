"""Two processes of torchrun, and two that a program forks: one record, in which every sample counts once."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.processes import ForkedPopen, forked, fresh
from tests.ranks import program
from valgap.record.reader import read_record
from valgap.types import RunRecord

pytestmark = pytest.mark.takes(35)
PROGRAM = Path(program.__file__)


def free_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


@pytest.fixture(scope="module")
def by_torchrun(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """(where, what was printed): ``torchrun --nproc-per-node 2 -m valgap run``, with ``--out`` in both ranks."""
    folder = tmp_path_factory.mktemp("torchrun")
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port()]
    done = fresh([*launcher, "-m", "valgap", "run", "--closing", "0", "--out", folder / "r", PROGRAM, "env"], cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done.stdout + done.stderr


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The same by two processes that the program forks, with closing measurements."""
    folder = tmp_path_factory.mktemp("forks")
    command = ["-m", "valgap", "run", "--closing", "10", "--out", folder / "r", PROGRAM, "fork"]
    done = forked(command, cwd=folder, variables={**os.environ, "PORT": free_port()})
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done.stdout + done.stderr


@pytest.fixture(params=["by_torchrun", "forks"])
def run(request: pytest.FixtureRequest) -> tuple[Path, str, RunRecord]:
    folder, printed = request.getfixturevalue(request.param)
    return folder, printed, read_record(folder / "r")


def test_two_ranks_leave_one_record_and_one_report(run: tuple[Path, str, RunRecord]) -> None:
    folder, printed, record = run
    assert [p.name for p in folder.iterdir() if p.is_dir()] == ["r"]
    assert [p.phase for p in record.passes] == ["train", "validation"] * 2
    assert [p.epoch for p in record.passes] == [0, 1, 1, 2]
    assert [(r.rank, r.world_size, r.exit_status, r.backend) for r in record.group] == [(0, 2, 0, "gloo"), (1, 2, 0, "gloo")]
    assert {p.device for r in record.group for p in r.passes} == {"cpu"}
    assert record.stopped is None and record.unseen == () and record.exit_status == 0
    assert printed.count("recorded in") == 1 and "2 processes trained together" in printed


def test_the_merged_validation_is_that_of_one_process_to_the_sample(run: tuple[Path, str, RunRecord]) -> None:
    folder, _, record = run
    model = program.network()
    model.load_state_dict(torch.load(folder / "weights.pt"))
    images, targets = program.data()[1].tensors
    expected = model.eval()(images).argmax(1).numpy()
    last = record.last_validation
    assert last is not None and last.processes == 2
    assert (len(last.samples), last.repeated) == (37, 1)  # 38 were seen: two ranks of 19
    names = [record.sample_names[i] for i in last.samples.sample.tolist()]
    places = [int(n.split("[")[1].rstrip("]")) for n in names]
    assert sorted(places) == list(range(37))
    np.testing.assert_array_equal(last.samples.prediction, expected[places])
    np.testing.assert_array_equal(last.samples.target, targets.numpy()[places])
    assert last.samples.accuracy == (expected == targets.numpy()).mean()
    assert last.batch_sizes.tolist() == [10, 10, 10, 8]


def test_each_rank_keeps_what_it_drew_and_what_became_of_its_model(run: tuple[Path, str, RunRecord]) -> None:
    first, second = run[2].group
    drawn = [[p.samples.sample.tolist() for p in r.training()] for r in (first, second)]
    assert drawn[0][0] == drawn[0][1] and drawn[1][0] == drawn[1][1]  # set_epoch is missing
    assert not set(drawn[0][0]) & set(drawn[1][0]) and len(drawn[0][0]) == 12
    assert first.first_weights == second.first_weights != {}
    for mine, other in zip(first.passes, second.passes, strict=True):
        assert mine.merged == other.merged >= 0
        assert mine.weights == other.weights != ""
        assert mine.buffers != ""
    assert first.passes[0].weights != first.passes[2].weights
    assert first.passes[0].buffers != second.passes[0].buffers  # BatchNorm's statistics are each rank's own
    for one in first.training() + second.training():
        assert (one.calls, one.unsynced_calls, one.wrapped_steps, one.unsynced_steps) == (3, 0, 3, 0)
    (wrapping,) = first.wrappings
    assert (wrapping.wrapper, wrapping.wrapped, wrapping.num_outside) == ("DistributedDataParallel", True, 0)
    assert any("rank 1 epoch 1" in line for line in second.printed)
    assert run[2].passes[0].steps.loss[0] == pytest.approx(np.mean([r.training()[0].steps.loss[0] for r in (first, second)]))


def test_the_measuring_rank_waits_for_no_other(forks: tuple[Path, str]) -> None:
    record = read_record(forks[0] / "r")
    assert record.closing is not None and "val_eval" in record.closing.rescores
    again, last = record.closing.rescores["val_eval"], record.last_validation
    assert last is not None and len(again)
    # A program of a tenth of a second leaves time for some of the images only.
    said = dict(zip(last.samples.sample.tolist(), last.samples.prediction.tolist(), strict=True))
    assert all(said[s] == p for s, p in zip(again.sample.tolist(), again.prediction.tolist(), strict=True))
    assert (forks[0] / "r" / "final.safetensors").is_file()
    assert {r.how for r in record.group} == {"fork"} and record.ranks[0].passes == ()


def test_training_in_processes_that_share_one_model_is_seen(tmp_path: Path) -> None:
    done = forked(["-m", "valgap", "run", "--closing", "0", "--out", tmp_path / "r", PROGRAM, "hogwild"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    record = read_record(tmp_path / "r")
    assert [p.phase for p in record.passes] == ["train"] * 4 + ["validation"]
    assert record.unseen == () and len({p.model for p in record.passes}) == 1
    assert record.group == () and [len(r.passes) for r in record.ranks] == [1, 2, 2]
    assert f"{record.passes[-1].samples.accuracy:.4f}" in done.stdout


@pytest.mark.parametrize(
    ("how", "status", "words"),
    [("shell", 2, "process that was not recorded"), pytest.param("command", 0, "recorded in", marks=pytest.mark.slow)],
)
def test_a_training_elsewhere_is_followed_or_said_to_be_unseen(tmp_path: Path, how: str, status: int, words: str) -> None:
    done = forked(["-m", "valgap", "run", "--closing", "0", "--out", tmp_path / "r", PROGRAM, how], cwd=tmp_path)
    assert (done.returncode, words in done.stderr, "Nothing is broken" in done.stderr) == (status, True, False), done.stderr
    record = read_record(tmp_path / "r")
    assert len(record.passes) == (0 if how == "shell" else 4)
    assert bool(record.unseen) == (how == "shell")
    if how == "shell":
        assert "pass` was started and not recorded" in record.unseen[0]


@pytest.mark.parametrize("seconds", [0.15, 0.3, 0.6])
def test_kill_of_one_rank_leaves_the_others_part_readable(tmp_path: Path, seconds: float) -> None:
    command = [sys.executable, "-m", "valgap", "run", "--closing", "0", "--out", str(tmp_path / "r"), str(PROGRAM), "pair", "0.1"]
    with (tmp_path / "output").open("wb") as output:
        process = ForkedPopen(command, output, env={**os.environ, "PORT": free_port()}, cwd=tmp_path)
    killed = _rank_of(tmp_path / "r" / "parts", 1)
    time.sleep(seconds)
    os.kill(killed, signal.SIGKILL)
    process.wait(120)
    record = read_record(tmp_path / "r")
    by_rank: dict[Any, Any] = {r.rank: r for r in record.ranks}
    assert by_rank[1].pid == killed and by_rank[1].exit_status is None
    assert by_rank[0].exit_status == 1 and by_rank[0].error
    assert record.stopped is not None and record.stopped.startswith("rank 1 was killed") and "(rank 0: " in record.stopped
    assert record.unseen and by_rank[0].passes
    assert all(0 <= p.merged < len(record.passes) for r in record.ranks for p in r.passes)
    assert "Nothing is broken" not in (tmp_path / "output").read_text()


def _rank_of(parts: Path, number: int) -> int:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        for file in parts.glob("*.jsonl"):
            if f'"rank":{number}' in file.read_text().partition('"t":"pass_begin"')[0]:
                return int(file.stem.split("-")[1])
        time.sleep(0.01)
    raise AssertionError("no such rank")


def test_spawned_processes_are_followed_and_workers_are_not(tmp_path: Path) -> None:
    script = tmp_path / "s.py"
    script.write_text(SPAWNING)
    done = forked(["-m", "valgap", "run", "--closing", "0", "--out", tmp_path / "r", script], cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list((tmp_path / "r" / "parts").glob("*.jsonl"))) == 1
    record = read_record(tmp_path / "r")
    assert [r.how for r in record.ranks] == ["", "spawn"] and len(record.ranks[1].passes) == 2
    assert done.stdout.split() == ["helper", "1", "[]", "True"]


SPAWNING = """
import multiprocessing, sys
sys.path.insert(0, {folder!r})


def helper():
    print("helper", len(sys.argv), flush=True)


def train():
    import os
    import torch
    from torch.utils.data import DataLoader
    from tests.ranks import program
    train, val = program.data()
    model = program.network()
    program.train_epoch(model, DataLoader(train, 4, num_workers=1), torch.optim.SGD(model.parameters(), 0.1))
    program.validate(model, DataLoader(val, 5))
    names = [*os.environ, *sys.modules["__main__"].__dict__]
    print([n for n in names if "valgap" in n.lower() and n != "VALGAP_CACHE"], "valgap" not in str(sys.argv), flush=True)


if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    for target in (helper, train):
        process = context.Process(target=target)
        process.start()
        process.join()
    sys.exit(process.exitcode)
""".replace("{folder!r}", repr(str(Path(__file__).parents[2])))


if sys.platform == "win32":
    pytestmark = [pytestmark, pytest.mark.skip("no fork")]
