"""MOD307."""

import pytest

from tests.checks.cases import dataset, found, healthy, loss_stats, with_phase, without
from valgap.checks.wrong_head_size import CHECK
from valgap.types import Clear, NotApplicable


@pytest.mark.parametrize("outputs", [5, 10, 1000])
def test_too_many_outputs(outputs: int) -> None:
    finding = found(CHECK.detect(with_phase(healthy(), "train", loss=loss_stats(num_outputs=outputs))))
    assert finding.evidence[0].value == outputs
    assert finding.evidence[0].reference == 4


@pytest.mark.parametrize("outputs", [2, 3])
def test_too_few_outputs_cost_the_missing_classes(outputs: int) -> None:
    finding = found(CHECK.detect(with_phase(healthy(), "train", loss=loss_stats(num_outputs=outputs))))
    assert finding.severity_points == pytest.approx(100 * (1 - outputs / 4))


def test_sound_and_one_output_for_two_classes_are_silent() -> None:
    assert isinstance(CHECK.detect(healthy()), Clear)
    case = healthy(datasets={0: dataset(0, range(200), class_to_idx={"no": 0, "yes": 1})})
    assert isinstance(CHECK.detect(with_phase(case, "train", loss=loss_stats(num_outputs=1))), Clear)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "train")), NotApplicable)
