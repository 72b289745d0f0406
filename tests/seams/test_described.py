"""What is told of a loader and of the innermost data set, without reading an image."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)

from valgap.seams.looking.datasets import length_of, targets_of
from valgap.seams.looking.described import loader_settings


class Ten(Dataset[int]):
    """Ten samples, with what else it is given."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> int:
        raise AssertionError("no sample is read")


class Stream(IterableDataset[int]):
    """Ten samples that come one after the other."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(10))


class Sized(Stream):
    """It knows how many there are."""

    def __len__(self) -> int:
        return 10


def test_a_plain_loader() -> None:
    told = loader_settings(DataLoader(Ten(), 4, shuffle=True, drop_last=True))
    assert told == {
        "batch_size": 4, "sampler": "RandomSampler", "shuffled": True, "drop_last": True, "num_workers": 0, "length": 2,
    }  # fmt: skip
    told = loader_settings(DataLoader(Ten(), 4))
    assert (told["sampler"], told["shuffled"], told["drop_last"], told["length"]) == ("SequentialSampler", False, False, 3)


@pytest.mark.parametrize(("inner", "shuffled"), [(SequentialSampler, False), (RandomSampler, True)])
def test_a_sampler_of_batches(inner: Any, shuffled: bool) -> None:
    loader = DataLoader(Ten(), batch_sampler=BatchSampler(inner(Ten()), 3, drop_last=False))
    told = loader_settings(loader)
    assert (told["batch_size"], told["sampler"], told["shuffled"], told["length"]) == (3, inner.__name__, shuffled, 4)


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_sampler_that_says_whether_it_shuffles(shuffle: bool) -> None:
    told = loader_settings(DataLoader(Ten(), 2, sampler=DistributedSampler(Ten(), 2, 0, shuffle=shuffle)))
    assert (told["sampler"], told["shuffled"]) == ("DistributedSampler", shuffle)
    known = RandomSampler(Ten())
    known.shuffle = False  # type: ignore[attr-defined]  # some attribute of that name
    assert loader_settings(DataLoader(Ten(), 2, sampler=known))["shuffled"] is True


def test_a_loader_of_another_library() -> None:
    told = loader_settings(SimpleNamespace(bs=8, shuffle=True))
    assert (told["batch_size"], told["sampler"], told["shuffled"]) == (8, "SimpleNamespace", True)
    assert loader_settings(SimpleNamespace())["batch_size"] == -1


@pytest.mark.parametrize(("drop_last", "length"), [(False, 3), (True, 2)])
def test_batches_of_a_stream_that_knows_its_size(drop_last: bool, length: int) -> None:
    assert length_of(DataLoader(Sized(), 4, drop_last=drop_last)) == length
    assert length_of(DataLoader(Sized(), 5, drop_last=drop_last)) == 2
    assert length_of(DataLoader(Sized(), None)) == 10
    assert length_of(DataLoader(Stream(), 4, drop_last=drop_last)) == -1


LABELS = [0, 1, 2, 0, 1, 2, 0, 1, 2, 3]


@pytest.mark.parametrize("name", ["targets", "labels", "_labels", "y", "samples", "imgs"])
def test_declared_targets(name: str) -> None:
    rows: Any = [(f"{i}.jpg", label) for i, label in enumerate(LABELS)] if name in ("samples", "imgs") else LABELS
    found = targets_of(Ten(**{name: rows}))
    assert found is not None and found.dtype == np.int32 and found.tolist() == LABELS


@pytest.mark.parametrize("rows", [LABELS[:9], [0.5] * 10, None, "0123456789"])
def test_what_is_no_target_of_each_sample_is_none(rows: Any) -> None:
    assert targets_of(Ten(targets=rows)) is None
    both = targets_of(Ten(targets=rows, labels=LABELS))
    assert both is not None and both.tolist() == LABELS  # the next name is asked
