"""TRN416."""

from dataclasses import replace

import numpy as np

from tests.checks.cases import TRAIN, found, healthy, samples, with_phase, without
from tests.checks.ranks import of_ranks, rows, two_ranks
from valgap.checks.training.repeated_order import CHECK
from valgap.types import Clear, NotApplicable


def test_each_rank_draws_as_in_the_epoch_before() -> None:
    case = two_ranks()
    first = [next(p.samples for p in r.passes if p.phase == "train") for r in case.run.ranks]
    same = of_ranks(
        case,
        passes=lambda r: tuple(replace(p, samples=first[r.rank or 0]) if p.phase == "train" else p for p in r.passes),
    )
    finding = found(CHECK.detect(same))
    assert finding.confidence >= 0.5
    assert [e.value for e in finding.evidence if e.name == "images that one process ever draws"] == [TRAIN // 2]
    assert "2 processes" in finding.summary


def test_one_process_with_a_generator_made_anew() -> None:
    table = samples(np.arange(TRAIN), 0.8, seed=3, shuffle=True)
    assert found(CHECK.detect(with_phase(healthy(), "train", samples=table))).evidence[0].value == 2


def test_new_orders_and_a_list_read_in_its_order_are_silent() -> None:
    assert isinstance(CHECK.detect(two_ranks()), Clear)
    assert isinstance(CHECK.detect(healthy()), Clear)
    assert isinstance(CHECK.detect(with_phase(healthy(), "train", samples=samples(np.arange(TRAIN)))), Clear)
    strided = rows(samples(np.arange(TRAIN)), np.arange(1, TRAIN, 2))  # a rank's part of an unshuffled list
    assert isinstance(CHECK.detect(with_phase(healthy(), "train", samples=strided)), Clear)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "train")), NotApplicable)
    unknown = samples(np.arange(TRAIN))
    unknown = replace(unknown, sample=np.full(TRAIN, -1, np.int32))
    assert isinstance(CHECK.detect(with_phase(healthy(), "train", samples=unknown)), NotApplicable)
