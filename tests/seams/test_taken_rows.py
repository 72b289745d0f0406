"""Loops that take rows of their tensors by number and change them: the samples are known all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import valgap
from valgap.record.reader import read_record
from valgap.seams.looking import taken_rows
from valgap.types.record import RunRecord

N, BATCH, EPOCHS = 96, 16, 3
Batches = Callable[[torch.Tensor, torch.Tensor], Iterator[tuple[torch.Tensor, torch.Tensor]]]


def _changed(x: torch.Tensor) -> torch.Tensor:
    """Cropped at random, all of a batch alike, and lit at random."""
    i, j = torch.randint(0, 3, (2,)).tolist()
    return x[..., i : i + 14, j : j + 14] * (1 + 0.1 * torch.rand(1)) + 0.02 * torch.randn(1)


def _by_index(x: torch.Tensor, y: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for index in torch.randperm(N).split(BATCH):
        yield _changed(x[index]), y[index]


def _one_by_one(x: torch.Tensor, y: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for index in torch.randperm(N).split(BATCH):
        yield torch.stack([_changed(x[i]) for i in index.tolist()]), y[index]


def _by_slice_of_an_order(x: torch.Tensor, y: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    order = torch.randperm(N)
    x, y = x[order], y[order]
    for i in range(0, N, BATCH):
        yield _changed(x[i : i + BATCH]), y[i : i + BATCH]


def _by_array(x: torch.Tensor, y: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    order = torch.randperm(N).numpy()
    for index in np.split(order, N // BATCH):
        yield _changed(x[index]), y[torch.from_numpy(index)]


def _by_select(x: torch.Tensor, y: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for index in torch.randperm(N).split(BATCH):
        yield _changed(x.index_select(0, index)), y.index_select(0, index)


def _taken_ahead(x: torch.Tensor, y: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    ready = None
    for batch in _by_index(x, y):
        if ready is not None:
            yield ready
        ready = batch
    assert ready is not None
    yield ready


def _two_mixed(x: torch.Tensor, y: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for index in torch.randperm(N).split(BATCH):
        yield 0.5 * _changed(x[index]) + 0.5 * _changed(x[torch.randperm(N)[:BATCH]]), y[index]


def _recorded(folder: Path, batches: Batches) -> tuple[RunRecord, torch.Tensor]:
    torch.manual_seed(0)
    x, y = torch.randn(N, 3, 16, 16) + torch.randn(N, 1, 1, 1), torch.arange(N) % 4
    val = torch.randn(20, 3, 14, 14)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 14 * 14, 4))
    with valgap.watch(out=folder, closing=0) as record:
        optimizer = torch.optim.SGD(net.parameters(), 0.01)
        for _ in range(EPOCHS):
            for images, labels in batches(x, y):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(images), labels).backward()
                optimizer.step()
        with torch.no_grad():
            (net(val).argmax(1) == torch.arange(20) % 4).float().mean()
    return read_record(record), y


@pytest.mark.parametrize("batches", [_by_index, _one_by_one, _by_slice_of_an_order, _by_array, _by_select])
def test_changed_rows_are_known_by_where_they_were_taken_from(tmp_path: Path, batches: Batches) -> None:
    run, labels = _recorded(tmp_path / "r", batches)
    passes = run.of_phase("train")
    assert len(passes) == EPOCHS and all(len(p.samples) == N for p in passes)
    sample = run.datasets[passes[0].dataset].sample
    assert sample is not None and len(np.unique(sample)) == N
    place = {s: i for i, s in enumerate(sample.tolist())}
    for one in passes:
        positions = [place[s] for s in one.samples.sample.tolist()]
        assert sorted(positions) == list(range(N))
        assert one.samples.target.tolist() == labels[positions].tolist()


@pytest.mark.parametrize("batches", [_taken_ahead, _two_mixed])
def test_rows_that_are_not_this_batch_name_no_sample(tmp_path: Path, batches: Batches) -> None:
    run, labels = _recorded(tmp_path / "r", batches)
    known = [d for d in run.datasets.values() if d.source == "memory" and d.size == N and d.sample is not None]
    for one in run.of_phase("train"):
        place = {s: i for d in known for i, s in enumerate(d.sample.tolist()) if d.sample is not None}
        told = [(place[s], t) for s, t in zip(one.samples.sample, one.samples.target, strict=True) if s in place]
        assert all(labels[i] == t for i, t in told), "named after other rows"


def test_rows_changed_in_place_keep_their_names(tmp_path: Path) -> None:
    def batches(x: torch.Tensor, y: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for index in torch.randperm(N).split(BATCH):
            yield torch.stack([x[i].mul_(0.9)[:, 1:15, 1:15] for i in index.tolist()]), y[index]

    run, _ = _recorded(tmp_path / "r", batches)
    names = [set(p.samples.sample.tolist()) for p in run.of_phase("train")]
    assert len(names) == EPOCHS and names[0] == names[1] == names[2] and len(names[0]) == N


def test_training_images_are_scored_as_they_lie_in_memory(tmp_path: Path) -> None:
    torch.manual_seed(0)
    y = torch.arange(N) % 4
    x = 60 + 20 * (torch.randn(N, 3, 16, 16) + torch.eye(4)[:, :3][y][:, :, None, None])  # lit by class, in grey levels
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4))
    with valgap.watch(out=tmp_path / "r", closing=20) as record:
        optimizer = torch.optim.Adam(net.parameters(), 0.003)
        for _ in range(EPOCHS):
            net.train()
            for index in torch.randperm(N).split(BATCH):
                images = ((x[index] - 60) / 20).flip(3) + 0.1 * torch.randn(BATCH, 3, 16, 16)
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(images), y[index]).backward()
                optimizer.step()
            net.eval()
            with torch.no_grad():
                (net((x[:20] - 60) / 20 + 0.0).argmax(1) == y[:20]).float().mean()
    run = read_record(record)
    assert run.closing is not None
    table = run.closing.rescores["train_eval"]
    assert len(table) == N and sorted(table.target.tolist()) == sorted(y.tolist())
    with torch.no_grad():
        right = (net((x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True)).argmax(1) == y).float().mean()
    assert abs(table.accuracy - right) < 0.25  # in the colours of training, mirrored no more
    assert run.closing.rescores["train_augmented"].target.tolist()


@pytest.mark.parametrize("n", [4, 8, 32])
def test_rows_are_believed_by_their_looks(n: int) -> None:
    draw = torch.Generator().manual_seed(n)
    false = 0
    for _ in range(40):
        rows = torch.randn(n, 3, 12, 12, generator=draw)
        rows += torch.nn.functional.interpolate(torch.randn(n, 3, 3, 3, generator=draw), 12)
        others = rows[torch.randperm(n, generator=draw).roll(1)]
        alone = (rows - rows.mean((1, 2, 3), keepdim=True)) / rows.std((1, 2, 3), keepdim=True)
        negatives = (255 - 60 * rows,) if n > 16 else ()
        for same in (rows.flip(3), alone[:, :, 1:11, 1:11], *negatives):
            assert taken_rows._are_these(rows, same)
        mixed = others + torch.randn(n, 3, 12, 12, generator=draw)
        false += taken_rows._are_these(torch.randn(n, 3, 12, 12, generator=draw), mixed)
    assert false <= 4


def test_an_evaluation_in_the_same_function_is_of_other_rows(tmp_path: Path) -> None:
    """Its batches are as large as the last training batch, whose numbers are still there."""
    torch.manual_seed(0)
    x, y, val = torch.randn(N, 3, 16, 16), torch.arange(N) % 4, torch.randn(2 * BATCH, 3, 16, 16)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4))
    with valgap.watch(out=tmp_path / "r", closing=0) as record:
        optimizer = torch.optim.SGD(net.parameters(), 0.01)
        for _ in range(EPOCHS):
            for index in torch.randperm(N).split(BATCH):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(x[index] + 0.1), y[index]).backward()
                optimizer.step()
            with torch.no_grad():
                for part in val.split(BATCH):
                    (net(part + 0.1).argmax(1) == torch.arange(BATCH) % 4).sum()
    run = read_record(record)
    trained = {s for p in run.of_phase("train") for s in p.samples.sample.tolist()}
    assert len(run.of_phase("train")) == EPOCHS and len(trained) == N
    assert [len(p.samples) for p in run.of_phase("validation")] == [2 * BATCH] * EPOCHS
    assert not trained & {s for p in run.of_phase("validation") for s in p.samples.sample.tolist()}


@pytest.mark.filterwarnings("error")
def test_rows_of_an_array_that_cannot_be_written_to(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x, y = np.random.default_rng(0).normal(size=(N, 3, 16, 16)).astype(np.float32), torch.arange(N) % 4
    x.setflags(write=False)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4))
    with valgap.watch(out=tmp_path / "r", closing=0) as record:
        optimizer = torch.optim.SGD(net.parameters(), 0.01)
        for _ in range(EPOCHS):
            for index in np.array_split(np.random.permutation(N), N // BATCH):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(torch.from_numpy(x[index][:, :, :, ::-1] * 2.0)), y[index]).backward()
                optimizer.step()
    run = read_record(record)
    assert not run.recorder_errors and [len(np.unique(p.samples.sample)) for p in run.of_phase("train")] == [N] * EPOCHS
