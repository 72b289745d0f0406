"""DAT111."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import CLASSES, TRAIN, VAL, dataset, found, healthy, quiet, samples, with_phase, without
from valgap.checks.data.unmatched_classes import CHECK, by_chance
from valgap.types import Case, Clear, NotApplicable

IDS = np.arange(TRAIN, TRAIN + VAL)


def foreign(count: int) -> Case:
    """Val has ``count`` classes more than train; its images are spread evenly over all of them."""
    names = {**{n: i for i, n in enumerate(CLASSES)}, **{f"new{i}": 4 + i for i in range(count)}}
    case = with_phase(healthy(), "validation", samples=samples(IDS, 0.5, classes=4 + count))
    return Case(replace(case.run, datasets={0: case.run.datasets[0], 1: dataset(1, IDS, class_to_idx=names)}))


@pytest.mark.parametrize("count", [1, 4])
def test_share_of_foreign_images_is_the_cost(count: int) -> None:
    finding = found(CHECK.detect(foreign(count)))
    expected = np.mean(IDS % (4 + count) >= 4)
    assert finding.severity_points == pytest.approx(100 * expected)
    assert finding.subjects == tuple(f"new{i}" for i in range(count))


def test_what_a_random_split_would_hold() -> None:
    """Good and Turing: the share of images of classes not drawn yet is that of the classes drawn once."""
    once = np.r_[np.arange(19), np.full(180, 99)]  # (19 + 1) of (199 + 1): a tenth
    for of_others, explained in ((0, True), (13, True), (25, False)):
        assert by_chance(once, np.arange(100) < of_others) == explained
    assert not by_chance(np.arange(10), np.ones(2000, bool))  # never all of so many


def test_labels_alone_tell_as_well() -> None:
    case = with_phase(healthy(), "validation", samples=samples(IDS, 0.5, classes=5))
    datasets = {i: replace(d, class_to_idx=None) for i, d in case.run.datasets.items()}
    assert found(CHECK.detect(Case(replace(case.run, datasets=datasets)))).subjects == ("4",)


def test_sound_run_and_shifted_indices_are_silent() -> None:
    assert isinstance(CHECK.detect(healthy()), Clear)
    names = {"bee": 0, "cat": 1, "dog": 2}
    case = healthy()
    case = Case(replace(case.run, datasets={0: case.run.datasets[0], 1: dataset(1, IDS, class_to_idx=names)}))
    assert quiet(CHECK.detect(case))


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "validation")), NotApplicable)


def test_labels_that_nobody_saw_are_no_missing_ones() -> None:
    """A loop over files, which knows the class by its own variables."""
    last = healthy().run.last_validation
    assert last is not None
    unknown = replace(last.samples, target=np.full(len(last.samples), -1, np.int32))
    case = with_phase(healthy(), "validation", samples=unknown, loader=-1)
    datasets = {i: replace(d, class_to_idx=None) for i, d in case.run.datasets.items()}
    assert isinstance(CHECK.detect(Case(replace(case.run, datasets=datasets))), NotApplicable)


def test_classes_that_train_holds_and_never_draws_are_the_drawings_fault() -> None:
    """Such as a sampler that draws one class only: the set itself has them all."""
    case = healthy()
    sets = {n: replace(d, class_to_idx=None) for n, d in case.run.datasets.items()}
    passes = []
    for one in case.run.passes:
        table = one.samples
        if one.phase == "train":
            keep = table.target < 2
            table = replace(table, **{k: v[keep] for k, v in vars(table).items()})
        passes.append(replace(one, samples=table))
    run = replace(case.run, passes=tuple(passes), datasets=sets)
    assert isinstance(CHECK.detect(Case(run)), Clear)
    folders = {n: replace(d, class_to_idx={c: i for i, c in enumerate(CLASSES) if n or i < 2}) for n, d in sets.items()}
    assert isinstance(CHECK.detect(Case(replace(run, datasets=folders))), Clear)  # named by what was drawn
    lacking = {**sets, 0: replace(sets[0], targets=sets[0].targets % 2)}
    assert found(CHECK.detect(Case(replace(run, datasets=lacking)))).confidence > 0.9
