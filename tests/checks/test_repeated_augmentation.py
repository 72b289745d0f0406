"""PRE209, and the measurement that it rests on."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from tests.checks.cases import found, healthy
from tests.checks.cases import measured as with_numbers
from valgap.checks.preprocessing.repeated_augmentation import CHECK
from valgap.seams.looking.worker_draws import DRAWS, worker_numbers
from valgap.types import Case, Clear, NotApplicable


class Varied(Dataset[Any]):
    """Images that are moved by a random number of this kind of generator."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.own = np.random.default_rng(0)

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        draw = {
            "own": lambda: self.own.random(),
            "numpy": lambda: np.random.random(),
            "python": random.random,
            "torch": lambda: torch.rand(()).item(),
            "mirror": lambda: float(torch.rand(()) < 0.5),
            "none": lambda: 0.0,
        }[self.kind]
        return torch.full((3, 4, 4), float(index)) + float(draw()), index


def constant_seed(worker: int) -> None:
    np.random.seed(7)


def measured(kind: str, **settings: Any) -> Case:
    numbers = worker_numbers(DataLoader(Varied(kind), batch_size=2, num_workers=2, **settings))
    assert isinstance(numbers, dict)
    case = healthy()
    assert case.run.closing is not None
    return Case(replace(case.run, closing=replace(case.run.closing, numbers=numbers)))


def test_a_generator_that_each_worker_copies() -> None:
    finding = found(CHECK.detect(measured("own")))
    assert [e.value for e in finding.evidence[:3]] == [DRAWS, 1.0, 1.0]
    assert finding.confidence >= 0.5


def test_workers_seeded_alike() -> None:
    assert "all workers" in found(CHECK.detect(measured("numpy", worker_init_fn=constant_seed))).summary


@pytest.mark.parametrize(
    ("same", "again", "who", "every"),
    [(1.0, 0.0, "all workers make", False), (1.0, 1.0, "all workers make", True), (0.0, 1.0, "each worker makes", True)],
)
def test_the_summary_says_what_is_the_same(same: float, again: float, who: str, every: bool) -> None:
    case = with_numbers(healthy(), worker_draws=12, worker_variants=6, worker_same=same, worker_same_next_epoch=again)
    summary = found(CHECK.detect(case)).summary
    assert summary.startswith(who) and ("in every epoch" in summary) == every


@pytest.mark.parametrize("kind", ["numpy", "python", "torch", "mirror", "none"])
def test_global_generators_and_no_augmentation_are_silent(kind: str) -> None:
    assert isinstance(CHECK.detect(measured(kind)), Clear)


def test_one_process_reads() -> None:
    assert isinstance(worker_numbers(DataLoader(Varied("own"))), str)
    assert isinstance(CHECK.detect(healthy()), NotApplicable)
