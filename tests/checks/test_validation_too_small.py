"""EVA507."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import TRAIN, dataset, found, healthy, quiet, samples, with_phase, without
from valgap.checks.evaluation.validation_too_small import CHECK
from valgap.reference import Stages
from valgap.stages import account
from valgap.types import Case, Judged, NotApplicable


@pytest.mark.parametrize("n", [10, 30, 60])
def test_few_images(n: int) -> None:
    ids = np.arange(TRAIN, TRAIN + n)
    case = with_phase(healthy(), "validation", samples=samples(ids, 0.7))
    case = Case(replace(case.run, datasets={**case.run.datasets, 1: dataset(1, ids)}))
    evidence = found(CHECK.detect(case)).evidence[0]
    assert evidence.n == n
    assert evidence.low is not None and evidence.high is not None
    assert evidence.low < 0.7 < evidence.high


def test_enough_images_are_silent() -> None:
    for n in (153, 186, 1000):
        assert quiet(CHECK.detect(with_phase(healthy(), "validation", samples=samples(np.arange(n), 0.7))))


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "validation")), NotApplicable)


def test_no_stage_is_at_fault_for_it() -> None:
    """What cannot be known is no fault of the measurement."""
    ids = np.arange(TRAIN, TRAIN + 30)
    case = with_phase(healthy(), "validation", samples=samples(ids, 0.7))
    case = Case(replace(case.run, datasets={**case.run.datasets, 1: dataset(1, ids)}))
    lines = account([Judged(CHECK, found(CHECK.detect(case)))], Stages(case.run, None))
    (line,) = [x for x in lines if x.stage == "measure"]
    assert line.verdict != "at fault" and not line.causes
