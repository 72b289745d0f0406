"""TRN409."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import found, healthy, inputs, steps, with_phase, without
from valgap.checks.nonfinite_loss import CHECK
from valgap.types import Case, Clear, NotApplicable


def bad_losses(count: int) -> Case:
    losses = np.linspace(1, 0.5, 20).astype(np.float32)
    losses[20 - count :] = np.nan
    return with_phase(healthy(), "train", steps=steps(20, loss=losses))


@pytest.mark.parametrize("count", [1, 5, 19])
def test_losses_that_are_nan(count: int) -> None:
    finding = found(CHECK.detect(bad_losses(count)))
    assert finding.evidence[1].value == 3 * count  # in each of three epochs
    assert finding.evidence[-1].value == f"step {20 - count}"


def test_inputs_come_first() -> None:
    case = with_phase(bad_losses(3), "train", inputs=replace(inputs(), nonfinite=2))
    assert "inputs" in found(CHECK.detect(case)).summary


def test_sound_and_a_few_skipped_steps_of_mixed_precision_are_silent() -> None:
    assert isinstance(CHECK.detect(healthy()), Clear)
    flags = (np.arange(20) < 2).astype(np.int8)
    assert isinstance(CHECK.detect(with_phase(healthy(), "train", steps=steps(20, nonfinite_grad=flags))), Clear)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "train")), NotApplicable)
