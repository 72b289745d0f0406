"""Heads that learn from features made before: their rows are told to be images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

import valgap
from tests.reference.pictures_seen import run_on
from valgap.features import images_of_run
from valgap.features.feature_rows import images_of_rows, with_feature_rows
from valgap.features.loop_files import with_loop_files
from valgap.record.reader import read_record
from valgap.reference import Stages
from valgap.seams.recording.kept_rows import MOST_ROWS, RowKeeper
from valgap.types import KeptRows, RunRecord

EACH = 16


def train_a_head(data: Path, way: str) -> None:
    """Features of all images once, standardised; then epochs of a linear layer on them."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 96, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()).eval()
    tensors = transforms.Compose([transforms.ToTensor(), transforms.Normalize(0.5, 0.5)])
    sides = []
    for split in ("train", "val"):
        folder = ImageFolder(str(data / split), tensors)
        with torch.no_grad():
            if way == "together":
                sides.append((torch.stack([v for v, _ in folder]), torch.tensor(folder.targets)))
            elif way == "memory":
                x, y = torch.stack([v for v, _ in folder]), torch.tensor(folder.targets)
                sides.append((torch.cat([body(b) for b in x.split(20)]), y))
            else:
                parts = [(body(x), y) for x, y in DataLoader(folder, 20)]
                sides.append((torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])))
    (a, y), (b, z) = sides
    if way == "together":  # the features of both sides are made in one loop
        with torch.no_grad():
            made = torch.cat([body(part) for part in torch.cat([a, b]).split(20)])
        a, b = made[: len(a)], made[len(a) :]
    y = y.roll(9) if way == "shifted" else y
    mean, spread = a.mean(0), a.std(0) + 1e-4
    a, b = (a - mean) / spread, (b - mean) / spread
    head, rows_of_train = nn.Linear(a.shape[1], 4), TensorDataset(a, y)
    optimizer = torch.optim.Adam(head.parameters(), 1e-2)
    for _ in range(3):
        head.train()
        batches = DataLoader(rows_of_train, 16, shuffle=True)
        for x, t in batches if way == "loader" else ((a[i], y[i]) for i in torch.randperm(len(a)).split(16)):
            loss = nn.functional.cross_entropy(head(nn.functional.dropout(x, 0.2 * (way not in ("loader", "together")))), t)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        head.eval()
        with torch.no_grad():
            nn.functional.cross_entropy(head(b), z)


def recorded(root: Path, way: str) -> RunRecord:
    """The record, its files told by the folder that the program was given."""
    run_on(root, each=EACH)  # the pictures
    with valgap.watch(out=root / "run", closing=0):
        train_a_head(root, way)
    run = read_record(root / "run")
    return replace(run, header={**run.header, "argv": ["train.py", str(root)], "cwd": str(root)})


@pytest.mark.parametrize("way", ["memory", "plain", "loader", "shifted", "together"])
def test_rows_are_told_to_be_the_images_that_they_are_of(way: str, tmp_path: Path) -> None:
    run = recorded(tmp_path, way)
    found = with_loop_files(with_feature_rows(run))
    assert found.made_once
    train, val = found.last_train, found.last_validation
    assert train is not None and val is not None
    names = [found.sample_names[s] for s in val.samples.sample]
    assert len(names) == 4 * EACH and all(n.endswith(".png") and "val/" in n for n in names)
    told = [(found.sample_names[s], t) for s, t in zip(train.samples.sample, train.samples.target, strict=True) if s >= 0]
    assert len(told) > 0.5 * 4 * EACH
    images = images_of_run(found, 1_000)
    assert images is not None and images.rows.part(False).size > 0.5 * 4 * EACH
    shown = [
        {int(s) for k in found.kept if found.passes[k.pass_index].phase == p for s in k.sample} for p in ("train", "validation")
    ]
    assert not shown[0] & shown[1]
    pair = Stages(found, images).compared("pair")
    assert pair.verdict == ("at fault" if way == "shifted" else "sound")


def rows(values: np.ndarray, made: bool, first: int = 0) -> KeptRows:
    return KeptRows(0, np.arange(first, first + len(values), dtype=np.int32), values.astype(np.float16), values.shape[1], made)


def test_what_is_told_of_rows_and_what_is_not() -> None:
    rng = np.random.default_rng(0)
    made = rng.gamma(1.0, size=(120, 64))
    order = rng.permutation(120)
    scaled = made * rng.uniform(0.1, 9, 64) + rng.normal(size=64)
    dropped = made * rng.uniform(0.1, 9, 64) * (rng.random((120, 64)) > 0.3)
    for given in (scaled, made / np.linalg.norm(made, axis=1, keepdims=True), dropped):
        found = images_of_rows(rows(given[order], False), rows(made, True, 500))
        assert found is not None
        known = found >= 0
        assert known.mean() > 0.8 and np.mean(found[known] == 500 + order[known]) > 0.97
    assert images_of_rows(rows(rng.gamma(1.0, size=(120, 64)), False), rows(made, True)) is None
    assert images_of_rows(rows(scaled[:, :32], False), rows(made, True)) is None
    assert images_of_rows(rows(scaled[:5], False), rows(made[:5], True)) is None


def test_a_record_without_features_is_left_as_it_is(tmp_path: Path) -> None:
    run, _ = run_on(tmp_path)
    assert with_feature_rows(run) is run
    few = replace(run, rows=(rows(np.ones((40, 64)), True),))
    assert with_feature_rows(few) is few


def test_the_keeper_holds_what_has_its_place() -> None:
    keeper = RowKeeper()
    for k in range(5):
        keeper.add(torch.full((1_000, 128), float(k)))
        keeper.name(np.arange(1_000 * k, 1_000 * (k + 1)))
    kept = keeper.result()
    assert kept is not None and kept["values"].shape == (MOST_ROWS, 64) and kept["width"] == 128
    assert np.array_equal(kept["sample"], np.arange(MOST_ROWS)) and np.array_equal(kept["values"][:, 0], kept["sample"] // 1_000)
    keeper.add(None)
    assert keeper.result() is None
    narrow = RowKeeper()
    narrow.add(torch.zeros(4, 10))
    assert narrow.result() is None
