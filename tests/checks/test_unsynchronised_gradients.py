"""TRN415."""

from dataclasses import replace
from typing import Any

import pytest

from tests.checks.cases import found, healthy
from tests.checks.ranks import WRAPPING, of_ranks, two_ranks
from valgap.checks.training.unsynchronised_gradients import CHECK
from valgap.types import Case, Clear, NotApplicable, RankInfo


def apart(case: Case | None = None, epochs: int = 3, **changes: Any) -> Case:
    """The ranks' weights differ at the ends of the first ``epochs`` training passes."""

    def passes(info: RankInfo) -> Any:
        return tuple(
            replace(p, weights=f"{p.weights} of rank {info.rank}", **changes) if p.phase == "train" and p.epoch < epochs else p
            for p in info.passes
        )

    return of_ranks(case or two_ranks(), passes=passes)


@pytest.mark.parametrize(
    ("changes", "wrapping", "words"),
    [
        ({"unsynced_steps": 10, "unsynced_calls": 10}, WRAPPING, "no_sync"),
        ({"calls_past_wrapper": 10}, WRAPPING, "model.module"),
        ({}, replace(WRAPPING, outside=("fc.weight",), num_outside=1), "fc.weight"),
        ({}, replace(WRAPPING, num_elsewhere=2), "no wrapper"),
        ({}, replace(WRAPPING, wrapper=None, wrapped=False, called_wrapper=False), "no parallel wrapper"),
    ],
)
def test_each_way_is_named(changes: dict[str, int], wrapping: Any, words: str) -> None:
    finding = found(CHECK.detect(of_ranks(apart(**changes), wrappings=(wrapping,))))
    assert words in finding.summary
    assert finding.confidence >= 0.9
    assert finding.evidence[0].value == 3


def test_first_weights_that_differ() -> None:
    case = of_ranks(
        apart(), first_weights=lambda r: {0: f"w{r.rank}"}, wrappings=(replace(WRAPPING, wrapper=None, wrapped=False),)
    )
    assert "first weights" in found(CHECK.detect(case)).summary


def test_equal_or_averaged_weights_are_silent() -> None:
    assert isinstance(CHECK.detect(two_ranks()), Clear)
    assert isinstance(CHECK.detect(apart(epochs=2)), Clear)  # averaged after the last epoch


def test_buffers_may_differ() -> None:
    case = of_ranks(two_ranks(), passes=lambda r: tuple(replace(p, buffers=f"{r.rank}") for p in r.passes))
    assert isinstance(CHECK.detect(case), Clear)


def test_sharded_weights_and_one_process_are_not_judged() -> None:
    assert isinstance(CHECK.detect(healthy()), NotApplicable)
    sharded = replace(WRAPPING, wrapper="FullyShardedDataParallel")
    assert isinstance(CHECK.detect(of_ranks(apart(), wrappings=(sharded,))), NotApplicable)
