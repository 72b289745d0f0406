"""Two processes that train together come to what one does: the same batches, images, steps and metrics."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.utils.data import RandomSampler

from tests.processes import ForkedPopen
from tests.ranks.test_ranks import free_port
from valgap.engine import FeatureStore
from valgap.engine.decoded import Pictures
from valgap.training.images import ImageDataset
from valgap.training.ranks import ALONE, Ranks, SharedBatches, own_share

pytestmark = pytest.mark.takes(22)
# What sums over half batches differ by, in float32, after two epochs of Adam.
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise around two colours; counts that no batch or process divides."""
    folder, rng = tmp_path_factory.mktemp("squares"), np.random.default_rng(0)
    for split, count in (("train", 31), ("val", 7)):
        for label, colour in (("green", 90), ("blue", 130)):
            (folder / split / label).mkdir(parents=True)
            for number in range(count):
                pixels = rng.normal(colour, 60, (48, 48, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{number}.png")
    return folder


def trained(photos: Path, out: Path, processes: int, launcher: bool, *options: str) -> dict[str, Any]:
    """Summary and weights of `valgap train` in so many processes, with a cache of their own.

    ``launcher``: started by torchrun; else forked, with the variables that it sets.
    """
    # Halves of a batch, rounded to bfloat16, add up to something else. At a low rate differences of rounding do not grow.
    config = out.parent / "exact.yaml"
    config.write_text("precision: fp32\nbackbone_rate: 0.3\n", encoding="utf-8")
    given = ["--out", str(out), "--backbone", "efficientnet_lite0", "--size", "32", "--config", str(config), *options]
    command = [sys.executable, "-m", "valgap", "train", str(photos), *given]
    variables = {"VALGAP_CACHE": str(out) + "-cache", "OMP_NUM_THREADS": "1"}
    printed = out.parent / f"{processes}.txt"
    if launcher and processes > 1:
        command[1:1] = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        with printed.open("wb") as output:
            statuses = [subprocess.call(command, stdout=output, stderr=output, timeout=300, env={**os.environ, **variables})]
    else:
        group = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": free_port(),
            "WORLD_SIZE": str(processes),
            "LOCAL_WORLD_SIZE": str(processes),
        }
        ranks = [{**group, "RANK": str(i), "LOCAL_RANK": str(i)} if processes > 1 else {} for i in range(processes)]
        with printed.open("wb") as output:
            running = [ForkedPopen(command, output, env={**variables, **rank}) for rank in ranks]
        statuses = [one.wait(300) for one in running]
    assert not any(statuses), printed.read_text()[-3000:]
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return {**summary, "weights": load_file(str(out / "checkpoint.safetensors")), "printed": printed.read_text()}


@pytest.mark.parametrize(
    ("unfreeze", "launcher"), [("all", False), *(pytest.param(u, True, marks=pytest.mark.slow) for u in ("all", "last"))]
)
def test_two_processes_equal_one(unfreeze: str, launcher: bool, squares: Path, tmp_path: Path) -> None:
    options = ["--unfreeze", unfreeze, "--epochs", "2", "--batch-size", "8"]
    one = trained(squares, tmp_path / "one", 1, launcher, *options)
    two = trained(squares, tmp_path / "two", 2, launcher, *options)
    assert two["printed"].count("probe:") == one["printed"].count("probe:") == 1  # one of them prints
    assert (tmp_path / "two" / "events.jsonl").is_file()  # and records
    for a, b in zip(one["epochs"], two["epochs"], strict=True):
        assert a["val_accuracy"] == b["val_accuracy"]
        assert a["val_loss"] == pytest.approx(b["val_loss"], rel=TOLERANCE)
        assert (a["train_loss"] is None) == (b["train_loss"] is None)
        assert a["train_loss"] is None or a["train_loss"] == pytest.approx(b["train_loss"], rel=TOLERANCE)
    assert not one["val_chose"]  # held-out train did, in the first process alone
    assert one["unfrozen"] == two["unfrozen"] == unfreeze
    assert one["train"]["n"] == two["train"]["n"] == 62
    for name, value in one["weights"].items():
        assert torch.allclose(value.float(), two["weights"][name].float(), rtol=TOLERANCE, atol=TOLERANCE), name


def test_the_parts_are_the_batches() -> None:
    def order() -> RandomSampler:
        return RandomSampler(range(26), generator=torch.Generator().manual_seed(3))

    whole = list(SharedBatches(order(), 8, ALONE))
    parts = [list(SharedBatches(order(), 8, Ranks(rank, 3))) for rank in range(3)]
    assert [len(b) for b in whole] == [8, 8, 8, 2]
    for number, batch in enumerate(whole):
        mine = [p[number][: own_share(len(batch), Ranks(rank, 3))] for rank, p in enumerate(parts)]
        assert sorted(i for part in mine for i in part) == sorted(batch)
    assert parts[2][3]  # never empty, though none of it counts
    assert own_share(2, Ranks(2, 3)) == 0


def test_alone_nothing_is_shared() -> None:
    rows = np.arange(6).reshape(3, 2)
    assert ALONE.same(lambda: 5) == 5
    assert ALONE.total(2.5, torch.device("cpu")) == 2.5
    assert ALONE.whole(rows, 3) is rows
    assert list(ALONE.part(3)) == [0, 1, 2]


def test_augmentation_depends_on_seed_epoch_and_index_alone(squares: Path) -> None:
    paths = sorted((squares / "train" / "green").iterdir())
    pictures = Pictures(paths, lambda path: np.zeros((4, 4, 3), np.uint8), "blank", 48, FeatureStore(squares / "cache"))
    dataset = ImageDataset(pictures, np.zeros(len(paths), np.int64), ["green"], lambda image: torch.rand(1), 0)
    first = [float(dataset[i][0]) for i in range(5)]
    torch.manual_seed(9)
    assert [float(dataset[i][0]) for i in reversed(range(5))] == first[::-1]
    assert len(set(first)) == 5
    dataset.epoch = 1
    assert float(dataset[0][0]) != first[0]
    loader = torch.utils.data.DataLoader(dataset, 1, num_workers=1, persistent_workers=True)
    epochs = []
    for epoch in (0, 1):
        dataset.epoch = epoch
        epochs.append(float(next(iter(loader))[0]))
    assert epochs[0] == first[0]  # reading processes that live on are told of the epoch
    assert epochs[1] != first[0]
