"""What a pass is, whoever hands out the batches: every kind of loader, kept batches, and tensors in memory."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as functional
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from torch.utils.data.dataloader import _SingleProcessDataLoaderIter

import valgap
from valgap.diagnosis import diagnose
from valgap.record.reader import read_record
from valgap.types import RunRecord

pytestmark = pytest.mark.takes(12)

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = functional.interpolate(torch.randn(60, 3, 4, 4, generator=GENERATOR), 12, mode="bilinear")
LABELS = torch.arange(60) % 3
TRAIN, VAL = (IMAGES[:40], LABELS[:40]), (IMAGES[40:], LABELS[40:])
Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]


class Program:
    """A training loop over anything that gives batches."""

    def __init__(self) -> None:
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))
        self.other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))
        self.optimizer = torch.optim.SGD(self.net.parameters(), 0.1)

    def learn(self, batches: Batches) -> None:
        for x, y in batches:
            self.optimizer.zero_grad()
            functional.cross_entropy(self.net.train()(x), y).backward()
            self.optimizer.step()

    @torch.no_grad()
    def score(self, batches: Batches, model: nn.Module | None = None) -> None:
        for x, y in batches:
            functional.cross_entropy((model or self.net).eval()(x), y)


def recorded(folder: Path, run: Callable[[Program], None]) -> RunRecord:
    """The record of a program, made in this process."""
    torch.manual_seed(0)
    program = Program()
    with valgap.watch(out=folder / "run", closing=0):
        run(program)
    record = read_record(folder / "run")
    assert record.recorder_errors == ()
    return record


def names(record: RunRecord, phase: str) -> list[list[str]]:
    """The sorted sample names of each pass of a phase; every sample has one."""
    passes = [p for p in record.passes if p.phase == phase]
    assert all((p.samples.sample >= 0).all() for p in passes)
    return [sorted(record.sample_names[i] for i in p.samples.sample.tolist()) for p in passes]


def loader(data: tuple[torch.Tensor, torch.Tensor], shuffle: bool = False) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*data), 8, shuffle=shuffle)


# -- kinds of loaders -------------------------------------------------------------------------------


class ForEver(DataLoader[Any]):
    """One iterator that is made once, never ends, and is drawn from for each pass."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        object.__setattr__(self, "batch_sampler", Repeated(self.batch_sampler))
        self.kept = super().__iter__()

    def __len__(self) -> int:
        return len(self.batch_sampler.inner)  # type: ignore[union-attr]

    def __iter__(self) -> Any:
        for _ in range(len(self)):
            yield next(self.kept)


class Repeated:
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __iter__(self) -> Any:
        while True:
            yield from iter(self.inner)


class Moved:
    """A wrapper that prepares a batch ahead of the one it gives."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __len__(self) -> int:
        return len(self.inner)

    def __iter__(self) -> Any:
        held = None
        for x, y in self.inner:
            ready = (x * 2.0, y)
            if held is not None:
                yield held
            held = ready
        yield held


class InThread:
    """A wrapper that reads in a thread of its own."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __iter__(self) -> Any:
        ready: queue.Queue[Any] = queue.Queue(2)

        def read() -> None:
            for batch in self.inner:
                ready.put(batch)
            ready.put(None)

        threading.Thread(target=read, daemon=True).start()
        while (batch := ready.get()) is not None:
            yield batch


class OwnLoader:
    """A loader of another library: it draws by itself, and borrows torch's iterators by means of a stand-in."""

    def __init__(self, dataset: Any, bs: int, shuffle: bool) -> None:
        self.dataset, self.bs, self.shuffle, self.num_workers = dataset, bs, shuffle, 0
        self.positions: list[int] = []
        self.stand_in = StandIn(self)

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.bs)

    def __iter__(self) -> Any:
        self.positions = (torch.randperm if self.shuffle else torch.arange)(len(self.dataset)).tolist()
        for x, y in _SingleProcessDataLoaderIter(self.stand_in):  # type: ignore[arg-type]
            yield x - 0.5, y


class Noisy(OwnLoader):
    """It changes whole batches at random, as fastai does."""

    def __iter__(self) -> Any:
        for x, y in super().__iter__():
            yield x * (1 + 0.1 * torch.rand(1)) + 0.05 * torch.randn(1), y


class StandIn(IterableDataset[Any]):
    _dataset_kind, _IterableDataset_len_called, _auto_collation = 1, None, False
    drop_last, num_workers, timeout, pin_memory, persistent_workers = False, 0, 0, False, False
    pin_memory_device, worker_init_fn, generator, multiprocessing_context = "", None, None, None
    in_order, prefetch_factor = True, None

    def __init__(self, loader: OwnLoader) -> None:
        self.dataset, self.loader = self, loader
        self._index_sampler = itertools.count()
        self.collate_fn = lambda batch: batch

    def __iter__(self) -> Any:
        own = self.loader
        for k in range(0, len(own.positions), own.bs):
            items = [own.dataset[i] for i in own.positions[k : k + own.bs]]
            yield torch.stack([x for x, _ in items]), torch.tensor([int(y) for _, y in items])


class Stream(IterableDataset[Any]):
    """Samples in a row, as if from a socket."""

    def __init__(self, data: tuple[torch.Tensor, torch.Tensor]) -> None:
        self.data = data

    def __iter__(self) -> Iterator[Any]:
        return iter(list(zip(*self.data, strict=True)))


class Batched(Dataset[Any]):
    """A data set whose items are whole batches, always the same tensors."""

    def __init__(self, data: tuple[torch.Tensor, torch.Tensor]) -> None:
        self.batches = [(x.clone(), y) for x, y in zip(data[0].split(8), data[1].split(8), strict=True)]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Any:
        return self.batches[index]


class Sliced:
    """Batches cut out of tensors in memory."""

    def __init__(self, data: tuple[torch.Tensor, torch.Tensor], shuffle: bool) -> None:
        self.data, self.shuffle = data, shuffle

    def __iter__(self) -> Any:
        x, y = self.data
        order = torch.randperm(len(x))
        for k in range(0, len(x), 8):
            part = order[k : k + 8]
            yield (x[part], y[part]) if self.shuffle else (x[k : k + 8], y[k : k + 8])


KINDS: dict[str, Callable[[tuple[torch.Tensor, torch.Tensor], bool], Any]] = {
    "torch": loader,
    "torch with workers that stay": lambda data, s: DataLoader(
        TensorDataset(*data), 8, shuffle=s, num_workers=1, persistent_workers=True
    ),
    "endless": lambda data, s: ForEver(TensorDataset(*data), 8, shuffle=s),
    "endless with a worker": lambda data, s: ForEver(TensorDataset(*data), 8, shuffle=s, num_workers=1),
    "one batch ahead": lambda data, s: Moved(loader(data, s)),
    "endless and one batch ahead": lambda data, s: Moved(ForEver(TensorDataset(*data), 8, shuffle=s)),
    "in a thread": lambda data, s: InThread(loader(data, s)),
    "of another library": lambda data, s: OwnLoader(TensorDataset(*data), 8, s),
    "a stream": lambda data, s: DataLoader(Stream(data), 8),
    "a list of batches": lambda data, s: list(loader(data, s)),
    "whole batches as items": lambda data, s: DataLoader(Batched(data), batch_size=None, shuffle=s),
    "slices": Sliced,
}


@pytest.mark.parametrize("kind", KINDS)
def test_passes_are_what_the_program_walks_over(kind: str, tmp_path: Path) -> None:
    def run(program: Program) -> None:
        train, val = KINDS[kind](TRAIN, True), KINDS[kind](VAL, False)
        for _ in range(2):
            program.learn(train)
            program.score(val)
            program.score(val)  # twice in a row

    record = recorded(tmp_path, run)
    assert [p.phase for p in record.passes] == ["train", "validation", "validation"] * 2
    assert [len(p.samples) for p in record.passes] == [40, 20, 20] * 2
    trained, scored = names(record, "train"), names(record, "validation")
    assert trained[0] == trained[1] and len(set(trained[0])) == 40
    assert all(one == scored[0] for one in scored) and len(set(scored[0])) == 20
    assert not set(trained[0]) & set(scored[0])
    assert [p.optimizer_steps for p in record.passes] == [5, 0, 0] * 2
    if "slices" not in kind and kind != "a list of batches":
        assert all(p.complete for p in record.passes)


# -- what ends a pass -------------------------------------------------------------------------------


def shapes(record: RunRecord) -> list[tuple[str, int, int]]:
    return [(p.phase, len(p.samples), p.optimizer_steps) for p in record.passes]


def test_steps_are_counted_and_not_epochs(tmp_path: Path) -> None:
    """An endless sampler: what is drawn between two validations is a pass, whatever the length that it states."""

    class Endless(torch.utils.data.Sampler[int]):
        def __iter__(self) -> Iterator[int]:
            while True:
                yield from torch.randperm(40).tolist()

    def run(program: Program) -> None:
        long = torch.utils.data.RandomSampler(range(40), replacement=True, num_samples=10**6)
        for sampler in (Endless(), long):
            batches = iter(DataLoader(TensorDataset(*TRAIN), 8, sampler=sampler))
            for _ in range(2):
                program.learn(itertools.islice(batches, 7))
                program.score(loader(VAL))

    assert shapes(recorded(tmp_path, run)) == [("train", 56, 7), ("validation", 20, 0)] * 4


def test_a_stream_that_never_ends_is_scored_again(tmp_path: Path) -> None:
    class Ring(Stream):
        def __iter__(self) -> Iterator[Any]:
            return itertools.cycle(list(zip(*self.data, strict=True)))

    def run(program: Program) -> None:
        program.learn(loader(TRAIN))
        batches = iter(DataLoader(Ring(VAL), 5))
        for _ in range(2):
            program.score(itertools.islice(batches, 4))

    assert shapes(recorded(tmp_path, run)) == [("train", 40, 5), ("validation", 20, 0), ("validation", 20, 0)]


def test_batches_that_are_kept_and_cycled(tmp_path: Path) -> None:
    def run(program: Program) -> None:
        batches = itertools.cycle(loader(TRAIN, shuffle=True))
        program.learn(itertools.islice(batches, 15))
        program.score(loader(VAL))

    record = recorded(tmp_path, run)
    assert shapes(record) == [*[("train", 40, 5)] * 3, ("validation", 20, 0)]
    assert names(record, "train")[0] == names(record, "train")[2]


def test_more_kept_batches_than_a_loader_reads_ahead(tmp_path: Path) -> None:
    def run(program: Program) -> None:
        batches = list(DataLoader(TensorDataset(IMAGES.repeat(3, 1, 1, 1)[:150], LABELS.repeat(3)[:150]), 2))
        program.learn(batches)
        program.score(batches[:20])
        program.learn(batches)

    assert [(p.phase, len(p.samples)) for p in recorded(tmp_path, run).passes] == [
        ("train", 150),
        ("validation", 40),
        ("train", 150),
    ]


def test_a_validation_in_the_middle_leaves_an_epoch_whole(tmp_path: Path) -> None:
    """Images in memory are validated on inside a loop over a loader."""

    def run(program: Program) -> None:
        for number, batch in enumerate(loader(TRAIN)):
            program.learn([batch])
            if number == 2:
                program.score(Sliced(VAL, shuffle=False))

    assert sorted(shapes(recorded(tmp_path, run))) == [("train", 40, 5), ("validation", 20, 0)]


@pytest.mark.parametrize("kind", ["torch", "slices"])
def test_two_models_scored_one_after_the_other_are_two_passes(kind: str, tmp_path: Path) -> None:
    def run(program: Program) -> None:
        program.learn(KINDS[kind](TRAIN, True))
        program.score(KINDS[kind](VAL, False))
        program.score(KINDS[kind](VAL, False), program.other)

    record = recorded(tmp_path, run)
    assert [len(p.samples) for p in record.passes] == [40, 20, 20]
    assert record.passes[1].model != record.passes[2].model
    assert record.passes[1].samples.sample.tolist() == record.passes[2].samples.sample.tolist()


def test_flipped_images_are_the_same_batch(tmp_path: Path) -> None:
    """Averages over views of slices in memory: two calls, one batch."""

    def run(program: Program) -> None:
        program.learn(Sliced(TRAIN, shuffle=True))
        with torch.no_grad():
            for x, y in Sliced(VAL, shuffle=False):
                functional.cross_entropy(program.net(x) + program.net(x.flip(3)), y)

    assert shapes(recorded(tmp_path, run)) == [("train", 40, 5), ("validation", 20, 0)]


def test_all_images_in_every_step(tmp_path: Path) -> None:
    def run(program: Program) -> None:
        for _ in range(3):
            program.learn([TRAIN])
            program.score([VAL])

    assert shapes(recorded(tmp_path, run)) == [("train", 40, 1), ("validation", 20, 0)] * 3


@pytest.mark.parametrize("kind", ["stream", "own"])
def test_what_only_its_own_loader_can_read_is_measured_at_the_end_too(kind: str, tmp_path: Path) -> None:
    make = (lambda d: DataLoader(Stream(d), 8)) if kind == "stream" else (lambda d: OwnLoader(TensorDataset(*d), 8, False))
    torch.manual_seed(0)
    program, train, val = Program(), make(TRAIN), make(VAL)
    with valgap.watch(out=tmp_path / "run", closing=500):
        for _ in range(2):
            program.learn(train)
            program.score(val)
    record = read_record(tmp_path / "run")
    closing, last = record.closing, record.last_validation
    assert closing is not None and last is not None and not record.recorder_errors
    again = closing.rescores["val_eval"]
    own = dict(zip(last.samples.sample.tolist(), last.samples.prediction.tolist(), strict=True))
    assert [own[i] for i in again.sample.tolist()] == again.prediction.tolist() and len(own) == 20
    assert set(closing.rescores["train_eval"].sample.tolist()) == set(record.of_phase("train")[-1].samples.sample.tolist())


def test_a_stream_that_gives_something_else_each_time_is_not_measured(tmp_path: Path) -> None:
    class Noisy(Stream):
        def __iter__(self) -> Iterator[Any]:
            return ((x + torch.randn_like(x), y) for x, y in zip(*self.data, strict=True))

    with valgap.watch(out=tmp_path / "run", closing=500):
        program, train, val = Program(), DataLoader(Noisy(TRAIN), 8), DataLoader(Stream(VAL), 8)
        program.learn(train)
        program.score(val)
    closing = read_record(tmp_path / "run").closing
    assert closing is not None and "val_eval" in closing.rescores and "train_eval" not in closing.rescores
    assert "changes the images" in closing.skipped["train_eval"]


def test_a_stream_is_not_asked_for_its_length(tmp_path: Path) -> None:
    """torch notes that a stream's loader was asked, and then warns where more comes than was told."""

    class Liar(Stream):
        def __len__(self) -> int:
            return 8

    def run(program: Program) -> None:
        program.learn(DataLoader(Liar(TRAIN), 8))
        program.score(loader(VAL))

    assert shapes(recorded(tmp_path, run)) == [("train", 40, 5), ("validation", 20, 0)]


def test_an_optimizer_that_is_not_torchs(tmp_path: Path) -> None:
    """It changes the weights by itself: each batch after which they are others was a step."""

    def run(program: Program) -> None:
        program.net[0].requires_grad_(False)
        for _ in range(2):
            for number, (x, y) in enumerate(loader(TRAIN, shuffle=True)):
                functional.cross_entropy(program.net.train()(x), y).backward()
                if number % 2:
                    for p in program.net.parameters():
                        if p.grad is not None:
                            p.data.add_(p.grad, alpha=-0.1)
                            p.grad = None
            program.score(loader(VAL))

    record = recorded(tmp_path, run)
    assert shapes(record) == [("train", 40, 2), ("validation", 20, 0)] * 2
    # The gradient of an epoch's fifth batch waits for the next epoch's first step.
    assert [p.steps.backwards.tolist() for p in record.of_phase("train")] == [[2, 2], [3, 2]]
    model = record.trained_model
    assert model is not None and model.trained
    assert (model.in_optimizer == (model.is_parameter & model.requires_grad)).all()
    findings = {j.check.name for j in diagnose(tmp_path / "run", images=0).findings}
    assert not findings & {"wrong_step_count", "untrained_parameters", "frozen_too_much"}


def test_no_step_at_all_is_none(tmp_path: Path) -> None:
    def run(program: Program) -> None:
        for x, y in loader(TRAIN):
            functional.cross_entropy(program.net(x), y).backward()
        program.score(loader(VAL))

    assert shapes(recorded(tmp_path, run)) == [("train", 40, 0), ("validation", 20, 0)]


@pytest.mark.parametrize("prepared", [True, False])
def test_images_that_another_librarys_loader_changes_at_random_are_probed_as_they_are(prepared: bool, tmp_path: Path) -> None:
    """Unless the program does more to them than the loader: what the network makes of others says nothing."""
    torch.manual_seed(0)
    program = Program()
    train, val = Noisy(TensorDataset(*TRAIN), 8, True), OwnLoader(TensorDataset(*VAL), 8, False)
    with valgap.watch(out=tmp_path / "run", closing=30):
        for _ in range(3):
            program.learn(train if prepared else ((4 * x + 3, y) for x, y in train))
            program.score(val)
    closing = read_record(tmp_path / "run").closing
    assert closing is not None
    assert ("probe_final" in closing.numbers) == prepared
    assert ("train_augmented" in closing.rescores) == prepared
