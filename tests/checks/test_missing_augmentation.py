"""PRE206."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from tests.checks.cases import TENSORS, TRAIN, VAL, found, healthy, model, quiet, rescored, samples, without
from tests.checks.pictures import pictures
from valgap.checks.preprocessing.missing_augmentation import CHECK, same_images
from valgap.types import Case, Clear, ImagePair, NotApplicable


def plain(train: float, val: float, varied: float = 0.0) -> Case:
    """A run whose training images differ between epochs for a share ``varied`` of the samples."""
    case = rescored(healthy(), train_eval=samples(range(TRAIN), train), val_eval=samples(range(TRAIN, TRAIN + VAL), val))
    passes = []
    for p in case.run.passes:
        moved = p.samples.sample < varied * TRAIN
        marks = p.samples.fingerprint + moved * 0.1 * p.index
        passes.append(replace(p, samples=replace(p.samples, fingerprint=marks.astype(np.float32))))
    return Case(replace(case.run, passes=tuple(passes)))


@pytest.mark.parametrize("gap", [0.4, 0.5])
def test_the_gap_is_the_dose(gap: float) -> None:
    finding = found(CHECK.detect(plain(1.0, 1.0 - gap)))
    assert finding.evidence[1].value == pytest.approx(100 * gap)


@pytest.mark.parametrize("varied", [0.0, 0.5, 1.0])
def test_repeated_images_are_counted(varied: float) -> None:
    assert same_images(plain(1.0, 0.5, varied).run) == pytest.approx(1 - varied)


def test_augmented_and_small_gaps_are_silent() -> None:
    assert isinstance(CHECK.detect(plain(1.0, 0.5, varied=1.0)), Clear)
    assert isinstance(CHECK.detect(plain(0.9, 0.8)), Clear)


def test_a_network_without_batchnorm_that_began_at_random() -> None:
    case = plain(1.0, 0.72)
    new = model(pretrained=None, newness=np.ones(len(TENSORS), np.int8))
    found(CHECK.detect(Case(replace(case.run, models={0: new}))))
    assert isinstance(CHECK.detect(Case(replace(case.run, models={0: model(pretrained=None)}))), Clear)  # nobody knows


def varied_on_disk(case: Case, copies: int, kind: Literal["near", "same_pixels"] = "near") -> Case:
    """The same run, of whose training files the first ones have so many copies each."""
    pairs = tuple(ImagePair(i, 20 + i * copies + k, kind, 0.97) for i in range(20) for k in range(copies))
    return Case(case.run, replace(pictures(), pairs=pairs))


def test_varied_copies_on_disk_are_augmentation_and_the_same_once_more_is_none() -> None:
    assert isinstance(CHECK.detect(varied_on_disk(plain(1.0, 0.5), 4)), Clear)
    found(CHECK.detect(varied_on_disk(plain(1.0, 0.5), 1)))
    found(CHECK.detect(varied_on_disk(plain(1.0, 0.5), 4, "same_pixels")))


def test_a_gap_to_mere_guesses_has_other_causes() -> None:
    assert isinstance(CHECK.detect(plain(1.0, 0.25)), Clear)


def test_a_frozen_network_is_a_hint() -> None:
    head = np.array([t[0].startswith("fc") for t in TENSORS])
    case = plain(1.0, 0.5)
    assert quiet(CHECK.detect(Case(replace(case.run, models={0: model(requires_grad=head, in_optimizer=head)}))))


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "train")), NotApplicable)
    assert isinstance(CHECK.detect(Case(replace(healthy().run, closing=None))), NotApplicable)


@pytest.mark.parametrize("mirrored", [0.0, 0.5])
def test_images_of_a_loop_are_known_by_what_they_hold(mirrored: float) -> None:
    """A mirrored one is another sample there, not the same with another input."""
    run = plain(1.0, 0.5).run
    passes = [replace(p, dataset=-1, loader=-1) for p in run.passes]
    last = max(i for i, p in enumerate(passes) if p.phase == "train")
    table = passes[last].samples
    others = np.where(np.arange(len(table)) < mirrored * len(table), table.sample + 10_000, table.sample).astype(np.int32)
    passes[last] = replace(passes[last], samples=replace(table, sample=others))
    assert same_images(replace(run, passes=tuple(passes))) == pytest.approx(1 - mirrored)


@pytest.mark.parametrize(("files", "varied"), [(TRAIN // 2, True), (TRAIN, False)])
def test_mirrored_copies_in_memory_are_augmentation(files: int, varied: bool) -> None:
    case = plain(1.0, 0.5)
    passes = tuple(replace(p, loader=-1) for p in case.run.passes)
    listed = tuple((f"class{i % 4}/{i}.png", i % 4) for i in range(files))
    run = replace(case.run, passes=passes, unlisted=listed)
    assert isinstance(CHECK.detect(Case(run)), Clear) == varied
