"""DAT107."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import TRAIN, VAL, dataset, found, healthy, measured, model, quiet, samples, with_phase
from tests.checks.pictures import case, pictures
from tests.checks.test_stage_faults import Known
from valgap.checks.data.too_few_images import CHECK, extrapolated, twice
from valgap.types import Case, Clear, Compared, Finding, LearningCurve, NotApplicable


def test_a_power_law_is_continued() -> None:
    sizes = np.array([50, 100, 200, 400.0])
    accuracies = 0.9 - 2.0 * sizes**-0.5
    assert extrapolated(sizes, accuracies) == pytest.approx(2 * (400**-0.5 - 800**-0.5), abs=1e-3)
    assert extrapolated(sizes, np.full(4, 0.8)) == pytest.approx(0, abs=1e-9)


def test_the_interval_holds_the_gain() -> None:
    rng = np.random.default_rng(0)
    sizes = np.array([50, 100, 200, 400])
    noisy = (0.9 - 2.0 * sizes**-0.5)[:, None] + rng.normal(0, 0.01, (4, 6))
    gain, low, high = twice(LearningCurve(sizes, noisy, True))
    assert low < gain < high
    assert gain == pytest.approx(2 * (400**-0.5 - 800**-0.5), abs=0.03)


def test_few_hard_images_rise_and_many_do_not() -> None:
    few = case(pictures(48, 400, apart=3.0))
    finding = found(CHECK.detect(few))
    assert finding.evidence[3].value == 12
    curve = few.images.learning_curve if few.images is not None else None
    assert curve is not None
    half = np.flatnonzero(curve.sizes == curve.sizes[-1] // 2)
    shown = [e.value for e in finding.evidence[1:3]]
    assert shown == pytest.approx([float(curve.accuracies[half].mean()), float(curve.accuracies[-1].mean())])
    assert isinstance(CHECK.detect(case(pictures(800, 200, apart=5.0))), Clear)
    outcome = CHECK.detect(case(pictures(200, 400, apart=2.5)))  # 50 a class, still rising: a hint
    assert quiet(outcome)
    assert isinstance(outcome, (Finding, Clear))


def test_half_of_the_images_are_those_nearest_to_half() -> None:
    many = case(pictures(800, 200, apart=3.0))
    curve = many.images.learning_curve if many.images is not None else None
    assert curve is not None and len(curve.sizes) > 2
    half = int(np.argmin(np.abs(curve.sizes - 400)))
    outcome = CHECK.detect(many)
    assert isinstance(outcome, (Finding, Clear))
    assert outcome.evidence[1].value == pytest.approx(float(curve.accuracies[half].mean()))


def trained_on(images: int, wrong: float) -> Case:
    """A run on so few images, which answers a share of validation wrongly."""
    one = with_phase(healthy(), "train", samples=samples(np.arange(images), 0.9))
    one = with_phase(one, "validation", samples=samples(np.arange(TRAIN, TRAIN + VAL), 1 - wrong))
    sets = {**one.run.datasets, 0: dataset(0, np.arange(images))}
    return Case(replace(one.run, datasets=sets))


def test_a_handful_is_told_without_a_curve() -> None:
    finding = found(CHECK.detect(trained_on(8, 0.4)))
    assert "8 images, 2 a class" in finding.summary
    assert isinstance(CHECK.detect(trained_on(8, 0.0)), NotApplicable)  # enough for what they are asked
    assert isinstance(CHECK.detect(trained_on(80, 0.4)), NotApplicable)


def test_without_files_the_features_that_the_network_began_with_tell() -> None:
    def curve(*accuracies: float, pretrained: bool = True) -> Case:
        sizes = (12, 22, 40)
        numbers = {"curve_n": 40.0}
        for share, size, accuracy in zip((30, 55, 100), sizes, accuracies, strict=True):
            numbers |= {f"curve_{share}_n": size, f"curve_{share}_0": accuracy, f"curve_{share}_1": accuracy}
        one = trained_on(40, 0.4)
        models = {0: model(pretrained=pretrained)}
        return measured(Case(replace(one.run, models=models)), **numbers)

    finding = found(CHECK.detect(curve(0.3, 0.42, 0.55)))
    assert finding.severity_points > 4 and "10 a class now" in finding.summary
    assert isinstance(CHECK.detect(curve(0.55, 0.55, 0.55)), Clear)
    assert isinstance(CHECK.detect(curve(0.3, 0.42, 0.55, pretrained=False)), NotApplicable)


def test_missing() -> None:
    assert isinstance(CHECK.detect(healthy()), NotApplicable)
    assert isinstance(CHECK.detect(case(replace(pictures(), embeddings=None))), NotApplicable)


def test_few_images_that_a_drawing_leaves_are_its_fault() -> None:
    one = case(pictures(48, 400, apart=3.0))
    for verdict, applies in (("at fault", False), ("sound", True)):
        drawn = Known(draw=Compared(verdict, ""))  # type: ignore[arg-type]
        assert isinstance(CHECK.detect(replace(one, stages=drawn)), Finding) == applies
