"""TRN411."""

import pytest

from tests.checks.cases import found, healthy, measured, replayed, trained_with, without
from valgap.checks.training.slow_optimizer import CHECK
from valgap.types import Clear, NotApplicable


@pytest.mark.parametrize("gain", [0.1, 0.4])
def test_points_are_what_momentum_or_adam_gains(gain: float) -> None:
    case = replayed(healthy(), 0.4, momentum=(0.42, 0.5), fitting=(0.4 + gain, 0.001))
    assert found(CHECK.detect(trained_with(case, "SGD", 1e-3, momentum=0.0))).severity_points == pytest.approx(100 * gain)


def test_without_a_replay_the_probe_gives_the_points() -> None:
    case = measured(replayed(healthy(), 0.4), probe_final=0.8, probe_n=200, replay_recorded=0.9)
    slow = trained_with(case, "SGD", 1e-4, momentum=0.0)
    outcome = CHECK.detect(slow)
    assert isinstance(outcome, Clear)  # updates of a usual size
    assert "nothing shows" in outcome.summary


def test_momentum_adam_and_a_fast_enough_sgd_are_silent() -> None:
    gains = replayed(healthy(), 0.4, momentum=(0.8, 0.001))
    assert isinstance(CHECK.detect(trained_with(gains, "SGD", 1e-3, momentum=0.9)), Clear)
    assert isinstance(CHECK.detect(trained_with(gains, "Adam", 1e-5)), Clear)
    fast = replayed(healthy(), 0.8, momentum=(0.81, 0.8), fitting=(0.8, 1.0))
    assert isinstance(CHECK.detect(trained_with(fast, "SGD", 0.1, momentum=0.0)), Clear)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "train")), NotApplicable)
