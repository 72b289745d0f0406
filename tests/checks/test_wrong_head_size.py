"""MOD307."""

from dataclasses import replace

import pytest

from tests.checks.cases import dataset, found, healthy, loss_stats, with_phase, without
from valgap.checks.model.wrong_head_size import CHECK
from valgap.types import Case, Clear, Finding, NotApplicable


@pytest.mark.parametrize("outputs", [5, 10, 1000])
def test_too_many_outputs(outputs: int) -> None:
    finding = found(CHECK.detect(with_phase(healthy(), "train", loss=loss_stats(num_outputs=outputs))))
    assert finding.evidence[0].value == outputs
    assert finding.evidence[0].reference == 4


def test_classes_that_nobody_declared_are_counted_by_their_labels() -> None:
    case = healthy(datasets={})
    finding = found(CHECK.detect(with_phase(case, "train", loss=loss_stats(num_outputs=6))))
    assert "6 outputs for 4 classes" in finding.summary and finding.remedy == "give the last layer 4 outputs"


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


def test_a_second_task_with_a_new_last_layer_has_its_own_classes() -> None:
    """Six classes with six outputs first, then four with four."""
    case = healthy()
    train = [p for p in case.run.passes if p.phase == "train"]
    assert len(train) > 1 and train[0].loss is not None
    first = train[0]
    wide = replace(
        first, loss=replace(first.loss, num_outputs=9), samples=replace(first.samples, target=first.samples.target + 5)
    )
    passes = tuple(wide if p is first else p for p in case.run.passes)
    assert Case(replace(case.run, passes=passes)).num_classes == case.num_classes
    assert not isinstance(CHECK.detect(Case(replace(case.run, passes=passes))), Finding)
