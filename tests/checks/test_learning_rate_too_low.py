"""TRN402."""

import pytest

from tests.checks.cases import found, healthy, quiet, replayed, trained_with, without
from valgap.checks.training.learning_rate_too_low import CHECK
from valgap.types import Clear, NotApplicable


@pytest.mark.parametrize("rate", [1e-6, 1e-5, 1e-4])
@pytest.mark.parametrize("gain", [0.1, 0.5])
def test_points_are_what_ten_times_the_rate_gains(rate: float, gain: float) -> None:
    case = trained_with(replayed(healthy(), 0.3, rate_ten=(0.3 + gain, 0.001)), "Adam", rate)
    assert found(CHECK.detect(case)).severity_points == pytest.approx(100 * gain)


def test_sound_rates_are_silent() -> None:
    assert isinstance(CHECK.detect(trained_with(replayed(healthy(), 0.7, rate_ten=(0.72, 0.5)), "Adam", 1e-5)), Clear)
    assert isinstance(CHECK.detect(trained_with(replayed(healthy(), 0.7, rate_ten=(0.6, 0.01)), "Adam", 1e-3)), Clear)


def test_a_usual_rate_that_would_gain_lacks_epochs_not_rate() -> None:
    assert quiet(CHECK.detect(trained_with(replayed(healthy(), 0.3, rate_ten=(0.6, 0.001)), "Adam", 1e-3)))


def test_plain_sgd_has_its_own_name() -> None:
    case = trained_with(replayed(healthy(), 0.3, rate_ten=(0.6, 0.001)), "SGD", 1e-3, momentum=0.0)
    assert quiet(CHECK.detect(case))
    fast = trained_with(replayed(healthy(), 0.3, rate_ten=(0.6, 0.001)), "SGD", 1e-4, momentum=0.9)
    found(CHECK.detect(fast))


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "train")), NotApplicable)
