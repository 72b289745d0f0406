"""TRN403."""

from dataclasses import replace

import pytest

from tests.checks.cases import found, healthy, quiet, replayed, trained_with, without
from valgap.checks.training.too_few_epochs import CHECK
from valgap.types import Case, Clear, Intervention, NotApplicable, Untreatable


@pytest.mark.parametrize("gain", [0.15, 0.3])
def test_points_are_what_more_steps_gain(gain: float) -> None:
    case = trained_with(replayed(healthy(), 0.5, longer=(0.5 + gain, 0.001)), "Adam", 1e-3)
    assert found(CHECK.detect(case)).severity_points == pytest.approx(100 * gain)


def test_a_finished_run_and_small_gains_are_silent() -> None:
    assert isinstance(CHECK.detect(trained_with(replayed(healthy(), 0.7, longer=(0.72, 0.4)), "Adam", 1e-3)), Clear)
    assert isinstance(CHECK.detect(trained_with(replayed(healthy(), 0.7, longer=(0.65, 0.01)), "Adam", 1e-3)), Clear)


def test_a_low_rate_is_not_a_lack_of_epochs() -> None:
    assert quiet(CHECK.detect(trained_with(replayed(healthy(), 0.3, longer=(0.5, 0.001)), "Adam", 1e-5)))
    assert quiet(CHECK.detect(trained_with(replayed(healthy(), 0.3, longer=(0.5, 0.001)), "SGD", 1e-3, momentum=0.0)))


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["train.py", "--epochs", "5"], {"place": 2, "value": "15", "factor": 3}),
        (["train.py", "data", "--epochs=4"], {"place": 2, "value": "--epochs=12", "factor": 3}),
        (["train.py", "epochs=2"], {"place": 1, "value": "epochs=6", "factor": 3}),
    ],
)
def test_the_program_is_called_with_more_epochs(argv: list[str], expected: dict[str, object]) -> None:
    case = healthy()
    case = Case(replace(case.run, header={"argv": argv}))
    assert CHECK.treat is not None
    assert CHECK.treat(case, None) == Intervention("arguments", expected)  # type: ignore[arg-type]
    assert isinstance(CHECK.treat(healthy(), None), Untreatable)  # type: ignore[arg-type]


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "train")), NotApplicable)
