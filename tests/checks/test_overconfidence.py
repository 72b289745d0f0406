"""EVA505."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.checks.cases import found, healthy, quiet
from valgap.checks.evaluation.overconfidence import CHECK
from valgap.seams.looking.calibration import calibration
from valgap.types import Case, Clear, Closing, Finding, NotApplicable


def scaled(scale: float, rises: bool = True) -> Case:
    """Validation logits that are right in their order and ``scale`` times too large; the loss ``rises`` or not."""
    rng = np.random.default_rng(0)
    target = rng.integers(0, 4, 400)
    logits = rng.normal(size=(400, 4))
    logits[np.arange(400), target] += 1.0
    numbers: Any = calibration(logits * scale, target)
    run = healthy(closing=Closing(numbers=numbers)).run
    if not rises:
        return Case(run)
    passes = []
    for p in run.passes:
        if p.phase == "validation":
            right = np.arange(len(p.samples)) % 10 < 8
            target = p.samples.target
            table = replace(
                p.samples,
                prediction=np.where(right, target, (target + 1) % 4).astype(np.int32),
                loss=np.where(right, 0.1, 1.0 + 2 * p.epoch).astype(np.float32),
            )
            p = replace(p, samples=table)
        passes.append(p)
    return Case(replace(run, passes=tuple(passes)))


@pytest.mark.parametrize("scale", [3.0, 5.0, 10.0])
def test_the_temperature_is_the_dose(scale: float) -> None:
    case = scaled(scale)
    found(CHECK.detect(case))
    assert case.run.closing is not None
    assert case.run.closing.numbers["val_temperature"] == pytest.approx(scale, rel=0.1)


def test_calibrated_and_unsure_answers_are_silent() -> None:
    assert isinstance(CHECK.detect(scaled(1.0)), Clear)
    assert isinstance(CHECK.detect(scaled(0.2)), Clear)
    assert quiet(CHECK.detect(scaled(1.6)))


def test_a_loss_that_rises_while_accuracy_stays_is_named_so() -> None:
    finding = found(CHECK.detect(scaled(4.0)))
    assert "rises while accuracy does not fall" in finding.summary
    assert finding.severity_points == 0


def test_without_such_a_course_it_is_a_hint() -> None:
    assert isinstance(CHECK.detect(scaled(4.0, rises=False)), Finding)
    assert quiet(CHECK.detect(scaled(4.0, rises=False)))


def test_shifted_labels_make_it_a_hint() -> None:
    case = scaled(4.0)
    passes = [
        replace(p, samples=replace(p.samples, prediction=((p.samples.prediction + 1) % 4).astype(np.int32)))
        if p.phase == "validation"
        else p
        for p in case.run.passes
    ]
    assert quiet(CHECK.detect(Case(replace(case.run, passes=tuple(passes)))))


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(healthy()), NotApplicable)
