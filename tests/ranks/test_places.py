"""Where processes of one job record, which commands are followed, and whose repeated samples count."""

from __future__ import annotations

import concurrent.futures
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from valgap.record.merging import _one_table
from valgap.record.place import Place, place_of, shared_run_directory
from valgap.seams.hosting.children import is_training, split_command
from valgap.types import SampleTable

TORCHRUN = {
    "RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none",
    "MASTER_ADDR": "a", "MASTER_PORT": "1", "TORCHELASTIC_RESTART_COUNT": "0",
}  # fmt: skip


def test_ranks_of_one_start_have_one_job_and_a_restart_has_another() -> None:
    first = place_of(TORCHRUN)
    assert first is not None and (first.rank, first.local_rank, first.world_size, first.attempt) == (1, 1, 4, 0)
    assert place_of({**TORCHRUN, "RANK": "3"}).job == first.job  # type: ignore[union-attr]
    again = place_of({**TORCHRUN, "TORCHELASTIC_RESTART_COUNT": "2"})
    assert again is not None and again.job != first.job and again.attempt == 2
    assert shared_run_directory(Path("x/y"), "n", again) == Path("x/y-3")
    assert shared_run_directory(Path("x/y"), "n", first) == Path("x/y")


@pytest.mark.parametrize(
    "variables",
    [{}, {"RANK": "0", "WORLD_SIZE": "1"}, {"RANK": "a", "WORLD_SIZE": "2"}, {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}],
)
def test_a_process_alone_has_no_place(variables: dict[str, str]) -> None:
    assert place_of(variables) is None


def test_all_ranks_of_a_job_find_one_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def of(rank: int, job: str) -> Path:
        return shared_run_directory(None, "train", Place(rank, rank, 8, job))

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda i: of(i // 2, f"job{i % 2}"), range(16)))
    assert len(set(found[::2])) == len(set(found[1::2])) == 1 and found[0] != found[1]
    assert found[0].is_dir()


def test_commands_of_this_interpreter_are_taken_apart(tmp_path: Path) -> None:
    python = sys.executable
    assert split_command([python, "-u", "-W", "ignore", "t.py", "-m"]) == (["-u", "-W", "ignore"], ["t.py", "-m"])
    assert split_command([python, "-m", "pack.train", "x"]) == ([], ["-m", "pack.train", "x"])
    assert split_command([python, "-c", "print()"]) == ([], [])
    assert split_command(["/bin/ls", "t.py"]) is None
    other = tmp_path / "python3"
    other.symlink_to(python)  # another environment: its packages differ
    assert split_command([str(other), "t.py"]) is None


def test_scripts_of_the_user_and_launchers_are_followed_and_libraries_are_not(tmp_path: Path) -> None:
    import torch

    (tmp_path / "train.py").touch()
    (tmp_path / "pack").mkdir()
    assert is_training(["train.py"], tmp_path) and is_training(["-m", "pack.train"], tmp_path) is False
    (tmp_path / "pack" / "train.py").touch()
    assert is_training(["-m", "pack.train"], tmp_path) and is_training(["-m", "torch.distributed.run", "x"], tmp_path)
    assert not is_training(["nothing.py"], tmp_path) and not is_training(["-m", "pip", "install"], tmp_path)
    assert not is_training([torch.__file__], tmp_path) and not is_training(["-m", "valgap", "run", "train.py"], tmp_path)


def table(sample: list[int], batch: list[int]) -> SampleTable:
    n = len(sample)
    nan = np.full(n, np.nan, np.float32)
    ids = np.array(sample, np.int32)
    return SampleTable(ids, np.zeros(n, np.int32), ids, nan, nan, nan, np.array(batch, np.int32), nan)


def test_known_samples_count_once_in_the_order_of_the_batches() -> None:
    sizes = [np.array([2, 1], np.int32)] * 2
    joined, repeated = _one_table([table([0, 2, 4], [0, 0, 1]), table([1, 3, 0], [0, 0, 1])], sizes, learning=False)
    assert (joined.sample.tolist(), repeated) == ([0, 2, 1, 3, 4], 1)


def test_what_one_process_draws_twice_is_padding_in_an_evaluation_only() -> None:
    sizes = [np.array([3, 3], np.int32)] * 2
    shares = [table([0, 1, 2, 6, 0, 1], [0, 0, 0, 1, 1, 1]), table([3, 4, 5], [0, 0, 0])]
    assert _one_table(shares, sizes, learning=False)[0].sample.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert _one_table(shares, sizes, learning=True)[1] == 0
    unknown = [replace(t, sample=np.full(len(t), -1, np.int32)) for t in shares]
    assert _one_table(unknown, sizes, learning=False)[1] == 0


def test_without_answers_there_is_no_accuracy_of_zero() -> None:
    one = table([0, 1, 2], [0, 0, 0])
    silent = replace(one, prediction=np.full(3, -1, np.int32))
    assert silent.labelled.all() and not silent.answered and np.isnan(silent.accuracy)
    assert one.answered and one.accuracy == pytest.approx(1 / 3)
