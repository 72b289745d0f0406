"""DAT106."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import found, healthy, inputs, quiet, samples, with_phase
from tests.checks.pictures import Pictures, case, of_run, pictures
from valgap.checks.data.distribution_shift import CHECK
from valgap.types import Case, Clear, Finding, Intervention, NotApplicable


def seen(brightness: float, contrast: float = 0.25) -> Case:
    return with_phase(healthy(), "validation", inputs=inputs(pixel_mean=brightness, pixel_std=contrast))


@pytest.mark.parametrize(("brightness", "word"), [(0.2, "darker"), (0.3, "darker"), (0.7, "brighter")])
def test_what_the_network_saw(brightness: float, word: str) -> None:
    finding = found(CHECK.detect(seen(brightness)))
    assert word in finding.summary
    assert finding.evidence[0].value == pytest.approx(brightness, abs=0.02)
    # The finished model's own accuracy on training images, 0.82, against the last validation's.
    last = healthy().run.last_validation
    assert last is not None
    assert finding.evidence[-1].value == pytest.approx(100 * (0.82 - last.samples.accuracy))
    assert CHECK.treat is not None
    treatment = CHECK.treat(seen(brightness), finding)
    assert isinstance(treatment, Intervention)
    assert treatment.name == "affine"


def test_low_contrast_is_named() -> None:
    assert "less contrast" in found(CHECK.detect(seen(0.45, 0.1))).summary


def test_small_changes_and_other_normalisation_are_not_this() -> None:
    assert isinstance(CHECK.detect(seen(0.47)), Clear)
    assert isinstance(CHECK.detect(healthy()), Clear)
    # val not normalised: the levels say so, and PRE201 names it
    other = with_phase(healthy(), "validation", inputs=inputs((0, 0, 0), (1, 1, 1)))
    assert quiet(CHECK.detect(other))


def moved(images: Pictures, by: float) -> Pictures:
    """Validation moved along one random direction of feature space."""
    direction = np.random.default_rng(5).normal(size=images.embeddings.shape[1])  # type: ignore[union-attr]
    direction *= by / np.linalg.norm(direction)
    change = np.outer(images.rows.is_val, direction).astype(np.float32)
    return replace(images, embeddings=images.embeddings + change)


def test_moved_features_and_attributes_are_named() -> None:
    sound = pictures(300, 150)
    dark = dict(sound.attributes.numbers)
    dark["brightness"] = np.where(sound.rows.is_val, dark["brightness"] - 0.15, dark["brightness"])
    images = replace(moved(sound, 3.0), attributes=replace(sound.attributes, numbers=dark))
    finding = found(CHECK.detect(case(images)))
    assert "brightness" in finding.summary
    assert len(finding.ranking) == 150
    assert len(finding.subjects) == 20


def fewer_cats() -> Pictures:
    """Of one class only a sixteenth is in val."""
    sound = pictures(300, 400)
    keep = np.flatnonzero(~sound.rows.is_val | (sound.rows.labels != 2) | (np.arange(700) % 16 == 2))
    rows = sound.rows
    rows = replace(
        rows,
        names=tuple(rows.names[i] for i in keep),
        paths=tuple(rows.paths[i] for i in keep),
        labels=rows.labels[keep],
        is_val=rows.is_val[keep],
    )
    numbers = {k: v[keep] for k, v in sound.attributes.numbers.items()}
    return replace(sound, rows=rows, embeddings=sound.embeddings[keep], attributes=replace(sound.attributes, numbers=numbers))


def test_class_shares_are_named() -> None:
    finding = found(CHECK.detect(case(fewer_cats())))
    assert "class cats" in finding.summary
    assert "same class" not in finding.summary


@pytest.mark.parametrize(("recalls", "told"), [((0.8, 0.8, 0.8, 0.8), False), ((0.4, 0.4, 0.95, 0.4), True)])
def test_another_mix_of_classes_is_told_where_it_is_the_harder_one(recalls: tuple[float, ...], told: bool) -> None:
    """Of cats there are few in val: that costs something only where they are known better than the others."""
    images = fewer_cats()
    val = images.rows.labels[images.rows.is_val]
    table = samples(range(len(val)), 1.0)
    right = np.concatenate([np.arange(n) < r * n for r, n in zip(recalls, np.bincount(val), strict=True)])
    target = np.sort(val).astype(np.int32)
    answers = np.where(right, target, (target + 1) % 4).astype(np.int32)
    run = with_phase(healthy(), "validation", samples=replace(table, target=target, prediction=answers)).run
    outcome = CHECK.detect(Case(run, images))
    assert isinstance(outcome, Finding) and (outcome.confidence >= 0.5) == told
    swapped = replace(images, rows=replace(images.rows, is_val=~images.rows.is_val))  # train lacks them, and val is even
    uneven = CHECK.detect(Case(run, swapped))
    assert not isinstance(uneven, Finding) or uneven.confidence < 0.5


def test_shares_of_classes_with_another_index_are_not_compared() -> None:
    run = healthy().run
    assert isinstance(CHECK.detect(Case(run, fewer_cats())), Finding)
    names = {name: (i + 1) % 3 for name, i in (run.datasets[1].class_to_idx or {}).items()}
    other = replace(run, datasets={**run.datasets, 1: replace(run.datasets[1], class_to_idx=names)})
    assert isinstance(CHECK.detect(Case(other, fewer_cats())), Clear)


def test_what_other_names_of_the_classes_cost_is_no_cost_of_a_shift() -> None:
    """A probe that learnt training's labels is right about validation only when these are renamed: a fault of pairing."""
    sound = pictures(300, 150)
    dark = dict(sound.attributes.numbers)
    dark["brightness"] = np.where(sound.rows.is_val, dark["brightness"] - 0.15, dark["brightness"])
    images = replace(moved(sound, 2.0), attributes=replace(sound.attributes, numbers=dark))
    labels = np.where(images.rows.is_val, (images.rows.labels + 1) % 4, images.rows.labels)
    renamed = replace(images, rows=replace(images.rows, labels=labels))
    of_shift = found(CHECK.detect(case(images))).severity_points
    outcome = CHECK.detect(case(renamed))
    assert isinstance(outcome, Finding) and outcome.severity_points == pytest.approx(of_shift, abs=6)


def test_sound_sets_are_clear() -> None:
    alarms = [not isinstance(CHECK.detect(case(pictures(120, 60, seed=s))), Clear) for s in range(15)]
    assert sum(alarms) <= 1


def test_missing() -> None:
    assert isinstance(CHECK.detect(case(pictures(100, 5))), NotApplicable)
    run = with_phase(healthy(), "validation", inputs=None)
    assert isinstance(CHECK.detect(run), NotApplicable)
    assert isinstance(CHECK.detect(of_run(pictures())), Clear)


@pytest.mark.parametrize(("of_val", "of_train", "named"), [(0.45, 0.3, False), (0.3, 0.45, True), (0.6, 0.3, True)])
def test_what_training_does_to_its_own_images_is_no_shift(of_val: float, of_train: float, named: bool) -> None:
    # the files of both sides are as bright as each other (0.45); padded crops put black borders on training images
    run = with_phase(of_run(pictures()), "train", inputs=inputs(pixel_mean=of_train)).run
    both = with_phase(Case(run, pictures()), "validation", inputs=inputs(pixel_mean=of_val)).run
    outcome = CHECK.detect(Case(both, pictures()))
    assert quiet(outcome) != named


@pytest.mark.parametrize(("of_val", "of_train", "named"), [(0.25, 0.5, False), (0.1, 0.25, True), (0.5, 0.25, True)])
def test_contrast_that_training_adds_to_its_own_images_is_no_shift(of_val: float, of_train: float, named: bool) -> None:
    # the files of both sides have the same contrast (0.24, over all pixels); turned pictures get black corners
    run = with_phase(of_run(pictures()), "train", inputs=inputs(pixel_std=of_train)).run
    both = with_phase(Case(run, pictures()), "validation", inputs=inputs(pixel_std=of_val)).run
    assert quiet(CHECK.detect(Case(both, pictures()))) != named
    assert not quiet(CHECK.detect(Case(both)))  # without the files nothing tells whose doing it is
