"""MOD308."""

import numpy as np
import pytest

from tests.checks.cases import found, healthy, modes, with_phase, without
from valgap.checks.model.tiny_batch_batchnorm import CHECK, POINTS
from valgap.types import Case, Clear, NotApplicable


def batches(size: int, norm: float = 1.0) -> Case:
    return with_phase(healthy(), "train", batch_sizes=np.full(10, size, np.int32), modes=modes(1.0, batchnorm_training=norm))


@pytest.mark.parametrize("size", [1, 2, 4])
def test_small_batches(size: int) -> None:
    finding = found(CHECK.detect(batches(size)))
    assert finding.evidence[0].value == size
    assert finding.severity_points == POINTS[size]


def test_sound_held_norm_and_small_last_batch_are_silent() -> None:
    assert isinstance(CHECK.detect(healthy()), Clear)
    assert isinstance(CHECK.detect(batches(2, norm=0.0)), Clear)
    last = with_phase(healthy(), "train", batch_sizes=np.array([32, 32, 32, 1], np.int32))
    assert isinstance(CHECK.detect(last), Clear)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "train")), NotApplicable)
