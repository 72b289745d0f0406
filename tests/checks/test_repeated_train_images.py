"""DAT109."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import found, healthy, quiet
from tests.checks.pictures import Pictures, case, pictures
from valgap.checks.data.repeated_train_images import CHECK, lost_points
from valgap.types import Case, Clear, Finding, ImagePair, LearningCurve, NotApplicable, Untreatable


def repeated(originals: int, copies: int) -> Pictures:
    """The first ``originals`` training images have ``copies`` copies each."""
    pairs = tuple(ImagePair(i, originals + i * copies + k, "near", 0.97) for i in range(originals) for k in range(copies))
    return replace(pictures(), pairs=pairs)


@pytest.mark.parametrize(("originals", "copies"), [(20, 2), (10, 9), (5, 30)])
def test_copies_are_counted_once(originals: int, copies: int) -> None:
    finding = found(CHECK.detect(case(repeated(originals, copies))))
    assert finding.evidence[0].value == originals * copies
    assert finding.evidence[1].value == 200 - originals * copies
    assert len(finding.subjects) == originals * copies


def test_chains_count_each_picture_once() -> None:
    chain = tuple(ImagePair(i, i + 1, "near", 0.97) for i in range(60))
    assert found(CHECK.detect(case(replace(pictures(), pairs=chain)))).evidence[0].value == 60


def test_a_few_repeats_and_leaks_are_silent() -> None:
    assert isinstance(CHECK.detect(case(repeated(2, 1))), Clear)
    assert quiet(CHECK.detect(case(repeated(10, 1))))
    assert isinstance(CHECK.detect(case(repeated(10, 1))), Finding)
    leaks = tuple(ImagePair(i, 200 + i, "near", 0.97) for i in range(50))  # across the split: DAT101
    assert isinstance(CHECK.detect(case(replace(pictures(), pairs=leaks))), Clear)


@pytest.mark.parametrize(("distinct", "points"), [(50, 30.0), (100, 20.0), (150, 10.0), (200, 0.0), (250, 0.0)])
def test_points_are_what_the_curve_gains_from_so_many_to_all(
    distinct: int, points: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = np.array([[0.4, 0.6], [0.5, 0.7], [0.7, 0.9]])
    monkeypatch.setattr(Pictures, "learning_curve", LearningCurve(np.array([50, 100, 200]), accuracies, True))
    assert lost_points(case(pictures()), distinct) == pytest.approx(points)
    assert lost_points(healthy(), distinct) == 0


def test_missing() -> None:
    assert isinstance(CHECK.detect(healthy()), NotApplicable)


@pytest.mark.parametrize(("times", "named"), [(1, False), (2, True), (8, True)])
def test_a_list_that_holds_samples_several_times(times: int, named: bool) -> None:
    run = healthy().run
    dataset = run.datasets[0]
    assert dataset.sample is not None
    places = np.resize(dataset.sample[: len(dataset.sample) // times], len(dataset.sample))
    listed = Case(replace(run, datasets={**run.datasets, 0: replace(dataset, sample=places)}))
    outcome = CHECK.detect(listed)
    if not named:
        assert isinstance(outcome, NotApplicable)
        return
    finding = found(outcome)
    assert finding.evidence[1].value == len(dataset.sample) // times
    assert CHECK.treat is not None and isinstance(CHECK.treat(listed, finding), Untreatable)
