"""TRN407."""

import numpy as np
import pytest

from tests.checks.cases import found, healthy, quiet, steps, with_phase, without
from valgap.checks.training.accumulated_gradients import CHECK
from valgap.types import Case, NotApplicable


def stale(share: float) -> Case:
    flags = (np.arange(10) < share * 10).astype(np.int8)
    return with_phase(healthy(), "train", steps=steps(10, stale_gradients=flags))


@pytest.mark.parametrize("share", [0.6, 0.9, 1.0])
def test_share_of_stale_steps(share: float) -> None:
    assert found(CHECK.detect(stale(share))).evidence[0].value == pytest.approx(share)


def test_sound_and_gradient_accumulation_are_silent() -> None:
    assert quiet(CHECK.detect(healthy()))
    assert quiet(CHECK.detect(stale(0.2)))
    assert quiet(CHECK.detect(with_phase(healthy(), "train", steps=steps(10, backwards=np.full(10, 4, np.int32)))))


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "train")), NotApplicable)
    unseen = with_phase(healthy(), "train", steps=steps(1, stale_gradients=np.array([-1], np.int8)))
    assert isinstance(CHECK.detect(unseen), NotApplicable)
