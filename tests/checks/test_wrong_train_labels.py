"""DAT104."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import found, healthy, quiet
from tests.checks.pictures import case, pictures, relabelled, two_classes
from valgap.checks.data.wrong_train_labels import CHECK
from valgap.types import Case, Clear, Finding, Intervention, NotApplicable, OtherKinds


@pytest.mark.parametrize("share", [0.1, 0.2, 0.3])
def test_planted_errors_are_counted_and_ranked_first(share: float) -> None:
    sound = pictures(400, 100, apart=5)
    rng = np.random.default_rng(1)
    bad = np.sort(rng.permutation(400)[: round(400 * share)])
    labels = sound.rows.labels.copy()
    labels[bad] = (labels[bad] + rng.integers(1, 4, len(bad))) % 4
    images = relabelled(sound, labels)
    finding = found(CHECK.detect(case(images)))
    assert finding.evidence[0].value == pytest.approx(share, abs=0.05)
    first = {r.path for r in finding.ranking[: len(bad)]}
    planted = {images.rows.names[i] for i in bad}
    assert len(first & planted) >= 0.8 * len(bad)
    assert len(finding.ranking) == 400
    names = list(images.rows.names)
    likely = [
        r.likely == images.rows.classes[sound.rows.labels[names.index(r.path)]] for r in finding.ranking if r.path in planted
    ]
    assert np.mean(likely) > 0.7


def test_sound_labels_are_clear_and_ranked_all_the_same() -> None:
    outcome = CHECK.detect(case(pictures(400, 100)))
    assert isinstance(outcome, Clear)
    assert len(outcome.ranking) == 400


def test_another_kind_of_thing_is_ranked_but_no_suspect() -> None:
    sound = pictures(400, 100, apart=5)
    score = np.full(500, np.nan)
    score[[7, 12]] = 0.9, 0.8
    named = tuple("fly" if i in (7, 12) else "" for i in range(500))
    outcome = CHECK.detect(case(replace(sound, other_kinds=OtherKinds(score, named))))
    assert isinstance(outcome, Clear)
    first = outcome.ranking[:2]
    assert [r.path for r in first] == [sound.rows.names[7], sound.rows.names[12]]
    assert [(r.seen, r.likely, r.score) for r in first] == [
        ("fly", None, pytest.approx(0.36)),
        ("fly", None, pytest.approx(0.32)),
    ]
    assert {r.seen for r in outcome.ranking[2:]} == {None}
    # a label that the probes find wrong keeps its likely class
    labels = sound.rows.labels.copy()
    labels[7] = (labels[7] + 1) % 4
    ranked = CHECK.detect(case(replace(relabelled(sound, labels), other_kinds=OtherKinds(score, named))))
    assert isinstance(ranked, Clear)
    one = next(r for r in ranked.ranking if r.path == sound.rows.names[7])
    assert one.likely == sound.rows.classes[sound.rows.labels[7]]


def test_hard_classes_are_no_wrong_labels() -> None:
    # classes that overlap: a probe is wrong on a sixth of the images, none of them mislabelled
    images = pictures(600, 100, apart=2.6)
    held = images.held_out
    assert held is not None
    assert held.train_accuracy < 0.85
    assert quiet(CHECK.detect(case(images)))


def test_missing_images_and_treatment() -> None:
    assert isinstance(CHECK.detect(healthy()), NotApplicable)
    assert isinstance(CHECK.detect(case(replace(pictures(), embeddings=None))), NotApplicable)
    run = replace(healthy().run, sample_names=pictures().rows.names)
    assert CHECK.treat is not None
    treatment = CHECK.treat(Case(run), Finding("", 1, 1, (), "", subjects=(run.sample_names[3], run.sample_names[150])))
    assert treatment == Intervention("drop_samples", {"phase": "train", "positions": [3, 150]})


def test_too_few_images_to_judge_single_labels_are_judged_by_both_sides() -> None:
    images = two_classes(wrong=0.4)
    errors = images.label_errors
    assert errors is not None and errors.train_interval[1] - errors.train_interval[0] > 0.4
    finding = found(CHECK.detect(case(images)))
    told = finding.evidence[-1]
    assert told.low is not None and told.high is not None and told.low < 0.4 < told.high
    assert not finding.subjects
    # nothing to learn from on either side: no rate at all
    rng = np.random.default_rng(0)
    lost = replace(images, rows=replace(images.rows, labels=rng.integers(0, 2, len(images.rows.labels))))
    assert isinstance(CHECK.detect(case(lost)), NotApplicable)
