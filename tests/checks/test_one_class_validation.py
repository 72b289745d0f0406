"""DAT112."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import TRAIN, VAL, found, healthy, quiet, samples, with_phase, without
from tests.checks.pictures import pictures
from valgap.checks.data.distribution_shift import CHECK as SHIFT
from valgap.checks.data.one_class_validation import CHECK
from valgap.checks.data.wrong_val_labels import CHECK as LABELS
from valgap.types import Case, Clear, Finding, NotApplicable

IDS = np.arange(TRAIN, TRAIN + VAL)


def block(classes: list[int]) -> Case:
    table = samples(IDS, 0.5)
    return with_phase(healthy(), "validation", samples=replace(table, target=np.resize(np.array(classes, np.int32), VAL)))


@pytest.mark.parametrize("classes", [[0], [3], [1, 2]])
def test_block_of_classes(classes: list[int]) -> None:
    finding = found(CHECK.detect(block(classes)))
    assert finding.evidence[0].value == len(classes)
    assert finding.evidence[0].reference == 4


def test_split_before_shuffle_has_disjoint_classes() -> None:
    case = block([3])
    table = samples(np.arange(TRAIN), 0.9, shuffle=True)
    case = with_phase(case, "train", samples=replace(table, target=table.target % 3))
    assert found(CHECK.detect(case)).severity_points > 0


def test_sound_and_a_small_uneven_validation_are_silent() -> None:
    assert isinstance(CHECK.detect(healthy()), Clear)
    assert isinstance(CHECK.detect(block([0, 0, 0, 0, 0, 1, 2, 3])), Clear)  # uneven, but all are there
    assert isinstance(CHECK.detect(block([0, 1, 2])), Clear)  # one missing folder is DAT111's


@pytest.mark.parametrize(("named", "n", "faulty"), [("ab", 12, False), ("a", 12, True), ("a", 10, True), ("a", 9, False)])
def test_a_missing_folder_tells_sooner_than_missing_images(named: str, n: int, faulty: bool) -> None:
    """Two classes in training, one in so few validation images."""
    run = healthy().run
    train = replace(run.datasets[0], class_to_idx={"a": 0, "b": 1})
    val = replace(run.datasets[1], class_to_idx={k: "ab".index(k) for k in named}, size=n, targets=None, sample=None)
    run = replace(run, datasets={0: train, 1: val})
    table, few = samples(np.arange(TRAIN), 0.9, shuffle=True), samples(IDS[:n], 0.5)
    case = with_phase(Case(run), "train", samples=replace(table, target=table.target % 2))
    case = with_phase(case, "validation", samples=replace(few, target=np.zeros(n, np.int32)))
    outcome = CHECK.detect(case)
    assert not quiet(outcome) if faulty else quiet(outcome)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "validation")), NotApplicable)


def test_labels_and_shares_are_not_named_once_more() -> None:
    images = pictures(200, 100)
    only = replace(images, rows=replace(images.rows, labels=np.where(images.rows.is_val, 0, images.rows.labels)))
    one, all_there = Case(block([0]).run, only), Case(healthy().run, only)
    assert quiet(LABELS.detect(one)) and quiet(SHIFT.detect(one))
    assert isinstance(SHIFT.detect(all_there), Finding)
