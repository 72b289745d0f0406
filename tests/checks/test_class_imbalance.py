"""DAT103."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import TRAIN, VAL, found, healthy, quiet, samples, with_phase
from tests.checks.pictures import case, pictures
from valgap.checks.data.class_imbalance import CHECK, training_counts
from valgap.types import Case, Clear, NotApplicable


def uneven(ratio: int, recall: float) -> Case:
    """Classes 0 and 1 hold ``ratio`` times as many images as 2 and 3, whose images are answered with 0 in 1 - recall."""
    sound = healthy()
    weights = np.array([ratio, ratio, 1, 1]) / (2 * ratio + 2)
    targets = np.repeat(np.arange(4), np.round(weights * TRAIN).astype(int))[:TRAIN].astype(np.int32)
    targets = np.pad(targets, (0, TRAIN - len(targets)))
    data = {**sound.run.datasets, 0: replace(sound.run.datasets[0], targets=targets)}
    table = samples(np.arange(TRAIN, TRAIN + VAL), 1.0)
    small = np.flatnonzero(table.target >= 2)
    wrong = small[: round(len(small) * (1 - recall))]
    table.prediction[wrong] = 0
    drawn = replace(samples(np.arange(TRAIN), 1.0), target=targets, prediction=targets)
    one = with_phase(Case(replace(sound.run, datasets=data)), "train", samples=drawn)
    return with_phase(one, "validation", samples=table)


@pytest.mark.parametrize("recall", [0.2, 0.5])
def test_small_classes_given_up(recall: float) -> None:
    finding = found(CHECK.detect(uneven(9, recall)))
    assert finding.evidence[1].value == pytest.approx(recall, abs=0.03)
    assert finding.subjects == ("class cats", "class dogs") or len(finding.subjects) == 2


def test_uneven_but_recognised_alike_is_clear() -> None:
    assert isinstance(CHECK.detect(uneven(9, 1.0)), Clear)
    assert isinstance(CHECK.detect(healthy()), Clear)


def test_even_classes_of_which_two_are_hard_are_no_imbalance() -> None:
    assert quiet(CHECK.detect(uneven(1, 0.3)))


def test_images_of_classes_are_those_declared_else_those_seen_else_those_on_disk() -> None:
    run = healthy().run
    declared = np.repeat(np.arange(3), (5, 3, 1)).astype(np.int32)
    sets = {**run.datasets, 0: replace(run.datasets[0], targets=declared)}
    assert (training_counts(Case(replace(run, datasets=sets))) == [5, 3, 1]).all()
    twice = replace(run.passes[0].samples, sample=np.zeros(TRAIN, np.int32))  # one sample, drawn again and again
    unknown = {**run.datasets, 0: replace(run.datasets[0], targets=None)}
    seen = Case(replace(run, datasets=unknown))
    assert (training_counts(seen) == [TRAIN / 4] * 4).all()
    assert training_counts(with_phase(seen, "train", samples=twice)).sum() == 1  # type: ignore[union-attr]
    assert training_counts(Case(replace(run, passes=()))) is None
    assert training_counts(Case(replace(run, passes=()), pictures(200, 100))).sum() == 200  # type: ignore[union-attr]


def test_from_images_alone_and_missing() -> None:
    assert isinstance(CHECK.detect(case(pictures())), Clear)
    counts = training_counts(case(pictures(200, 100)))
    assert counts is not None
    assert counts.tolist() == [50] * 4
    assert isinstance(CHECK.detect(Case(replace(healthy().run, passes=()))), NotApplicable)


def test_classes_that_are_drawn_evenly_are_meant_against_it() -> None:
    one = uneven(9, 0.2)
    assert quiet(CHECK.detect(with_phase(one, "train", samples=samples(np.arange(TRAIN), 1.0))))


@pytest.mark.parametrize(("power", "hint"), [(-1.0, True), (-0.5, True), (1.0, False), (0.0, False)])
def test_weights_that_favour_small_classes_are_meant_against_it(power: float, hint: bool) -> None:
    one = uneven(10, 0.2)
    counts = training_counts(one)
    assert counts is not None and one.run.last_train is not None and one.run.last_train.loss is not None
    weights = np.where(counts > 0, np.maximum(counts, 1.0) ** power, 1.0).tolist()
    weighted = with_phase(one, "train", loss=replace(one.run.last_train.loss, class_weights=True, weights=weights))
    assert quiet(CHECK.detect(weighted)) == hint
