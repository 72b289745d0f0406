"""MOD312."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import found, healthy, modes, with_phase
from tests.checks.ranks import WRAPPING, of_ranks, two_ranks
from valgap.checks.model.per_process_batchnorm import CHECK
from valgap.checks.model.tiny_batch_batchnorm import POINTS
from valgap.types import Case, Clear, NotApplicable


def batches(size: int, norm: float = 1.0, synchronised: int = 0) -> Case:
    sound = with_phase(healthy(), "train", modes=modes(1.0, batchnorm_training=norm))
    case = two_ranks(sound, batch_sizes=np.full(10, size, np.int32))
    return of_ranks(case, wrappings=(replace(WRAPPING, sync_batchnorm=synchronised),))


@pytest.mark.parametrize("size", [3, 4])
def test_few_images_in_each_process(size: int) -> None:
    finding = found(CHECK.detect(batches(size)))
    assert finding.evidence[0].value == size
    assert finding.severity_points == POINTS[size]


def test_larger_synchronised_or_held_batches_are_silent() -> None:
    assert isinstance(CHECK.detect(batches(8)), Clear)
    assert isinstance(CHECK.detect(batches(3, synchronised=1)), Clear)
    assert isinstance(CHECK.detect(batches(3, norm=0.0)), Clear)


def test_all_processes_together_have_as_few() -> None:
    assert isinstance(CHECK.detect(batches(1)), Clear)


def test_one_process_is_not_judged() -> None:
    assert isinstance(CHECK.detect(healthy()), NotApplicable)
