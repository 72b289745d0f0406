"""DAT101."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import TRAIN, VAL, found, healthy, quiet, samples, with_phase, without
from tests.checks.pictures import pictures
from valgap.checks.data.train_val_overlap import CHECK
from valgap.types import Case, Clear, Closing, ImagePair, NotApplicable, Twin


def leaked(count: int) -> Case:
    twins = tuple(Twin(i, TRAIN + i, "same_bytes", 1.0) for i in range(count))
    return healthy(closing=Closing(twins=twins))


@pytest.mark.parametrize("count", [1, 10, 50])
def test_each_copy_is_counted_and_listed(count: int) -> None:
    finding = found(CHECK.detect(leaked(count)))
    assert finding.evidence[0].value == count
    assert len(finding.subjects) == count
    assert finding.subjects[0] == f"photos/{TRAIN}.jpg = photos/0.jpg"


def test_points_are_the_accuracy_without_copies_minus_with() -> None:
    table = samples(np.arange(TRAIN, TRAIN + VAL), 0.5)
    table.prediction[:40] = table.target[:40]  # the forty copies are all right
    case = with_phase(leaked(40), "validation", samples=table)
    rest = float((table.prediction[40:] == table.target[40:]).mean())
    assert found(CHECK.detect(case)).severity_points == pytest.approx(100 * (rest - table.accuracy))
    assert rest < table.accuracy


def test_sound_and_other_faults_are_silent() -> None:
    assert isinstance(CHECK.detect(healthy()), Clear)
    # validation over the training set itself is EVA508's
    assert quiet(CHECK.detect(with_phase(healthy(), "validation", samples=samples(np.arange(TRAIN), 0.9))))


def test_copies_among_files_are_counted_by_kind() -> None:
    """Of a folder without a run: equal ones, near ones, and pairs on one side that are no leak."""
    pairs = (ImagePair(0, 250, "same_bytes", 1.0), ImagePair(1, 251, "near", 0.97), ImagePair(2, 251, "near", 0.96))
    pairs = (*pairs, ImagePair(3, 4, "near", 0.97), ImagePair(252, 253, "same_bytes", 1.0))
    images = replace(pictures(200, 100), pairs=pairs)
    finding = found(CHECK.detect(Case(replace(healthy().run, path="", passes=()), images)))
    assert [(e.value, e.n) for e in finding.evidence[:2]] == [(2, 100), (1, None)]
    names = images.rows.names
    assert finding.subjects == (f"{names[250]} = {names[0]}", f"{names[251]} = {names[1]}")
    assert finding.confidence == 0.99


def test_pictures_that_are_alike_are_told_beside_the_copies_of_a_run() -> None:
    run = leaked(2).run
    images = replace(pictures(200, 100), pairs=())
    finding = found(CHECK.detect(Case(run, images)))
    assert [(e.value, e.reference, e.unit) for e in finding.evidence[:2]] == [(2, 0, "images"), (0, 0, "images")]


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "validation")), NotApplicable)
    run = healthy().run
    assert isinstance(CHECK.detect(Case(replace(run, closing=None))), NotApplicable)


def test_samplers_that_share_one_folder_are_silent() -> None:
    """Both data sets hold all files; what training draws is none of what validation draws."""
    shared = tuple(Twin(i, i, "same_file", 1.0) for i in range(TRAIN + VAL))
    assert isinstance(CHECK.detect(healthy(closing=Closing(twins=shared))), Clear)


def test_where_next_to_nothing_is_left_beside_the_copies_a_probe_says_what_they_are_worth() -> None:
    """Augmented copies on disk before the split: 190 of 200 have a copy in train, and the other ten are right by chance."""
    twins = tuple(Twin(i, TRAIN + i, "same_bytes", 1.0) for i in range(VAL - 10))
    table = samples(np.arange(TRAIN, TRAIN + VAL), 0.99)
    run = with_phase(healthy(closing=Closing(twins=twins)), "validation", samples=table).run
    images = pictures(300, 150)
    assert images.held_out is not None
    finding = found(CHECK.detect(Case(run, images)))
    too_good = table.accuracy - images.held_out.train_accuracy
    assert too_good > 0.02 and finding.severity_points == pytest.approx(-100 * too_good)
    assert "has not seen" in finding.evidence[-1].name
