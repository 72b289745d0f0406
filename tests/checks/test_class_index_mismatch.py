"""DAT102."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import CLASSES, TRAIN, VAL, dataset, found, healthy, samples, with_phase, without
from valgap.checks.data.class_index_mismatch import CHECK, UNMEASURED_POINTS, renamed_by
from valgap.types import Case, Clear, Closing, NotApplicable, Untreatable

IDS = np.arange(TRAIN, TRAIN + VAL)


def shifted(by: int, maps: bool = True) -> Case:
    """Val numbers its classes ``by`` places later than train; the model answers in train's numbers."""
    case = healthy()
    table = samples(IDS, 0.8)
    table = replace(table, target=(table.target + by) % 4)
    case = with_phase(case, "validation", samples=table)
    names = {name: (i + by) % 4 for i, name in enumerate(CLASSES)} if maps else None
    datasets = {0: case.run.datasets[0], 1: dataset(1, IDS, class_to_idx=names, targets=(IDS + by) % 4)}
    return Case(replace(case.run, datasets=datasets))


@pytest.mark.parametrize("by", [1, 2, 3])
def test_maps_by_name_give_the_exact_loss(by: int) -> None:
    case = shifted(by)
    finding = found(CHECK.detect(case))
    last = case.run.last_validation
    assert last is not None
    assert finding.severity_points == pytest.approx(100 * (0.8 - last.samples.accuracy))
    assert finding.evidence[0].value == 4
    assert (finding.evidence[-1].value, finding.evidence[-1].reference, finding.evidence[-1].n) == (1.0, 0.0, len(last.samples))


def test_without_maps_a_renaming_is_found_on_held_out_images() -> None:
    assert found(CHECK.detect(shifted(1, maps=False))).severity_points > 40


def test_equal_maps_do_not_hide_labels_that_are_numbered_otherwise() -> None:
    """The names are the data set's class's own; the numbers stand in its files."""
    case = shifted(1)
    names = {name: i for i, name in enumerate(CLASSES)}
    val = replace(case.run.datasets[1], class_to_idx=names)
    case = Case(replace(case.run, datasets={0: case.run.datasets[0], 1: val}))
    finding = found(CHECK.detect(case))
    assert "renaming" in finding.summary and finding.severity_points > 40
    assert isinstance(CHECK.treat(case, finding), Untreatable)


def test_the_cost_is_assumed_where_the_model_answers_at_chance() -> None:
    rng = np.random.default_rng(4)
    case = shifted(1)
    table = case.run.last_validation.samples  # type: ignore[union-attr]
    guessed = replace(table, prediction=rng.integers(0, 4, VAL).astype(np.int32))
    finding = found(CHECK.detect(with_phase(case, "validation", samples=guessed)))
    assert finding.severity_points == UNMEASURED_POINTS
    assert any("assumed" in e.name for e in finding.evidence)


def test_one_class_missing_in_val_shifts_the_rest() -> None:
    case = healthy()
    names = {"bee": 0, "cat": 1, "dog": 2}
    table = samples(IDS, 0.9)
    keep = table.target > 0
    part = replace(table, **{k: v[keep] for k, v in vars(table).items()})
    part = replace(part, target=part.target - 1)
    case = with_phase(case, "validation", samples=part)
    val = dataset(1, IDS, class_to_idx=names, targets=IDS % 4 - 1)
    case = Case(replace(case.run, datasets={0: case.run.datasets[0], 1: val}))
    finding = found(CHECK.detect(case))
    assert finding.evidence[0].value == 3
    assert "ant" in finding.summary


def test_maps_that_the_program_makes_one_are_no_fault() -> None:
    """The two data sets number their folders each in its own way; ``target_transform`` gives val the numbers of train."""
    case = healthy()
    names = {name: (i + 1) % 4 for i, name in enumerate(CLASSES)}
    own = dataset(1, IDS, class_to_idx=names, targets=(IDS + 1) % 4)
    case = Case(replace(case.run, datasets={0: case.run.datasets[0], 1: own}))
    assert isinstance(CHECK.detect(case), Clear)


def test_what_renames_the_classes_is_told_for_the_edit() -> None:
    """The maps as they stand, or what is done to the labels of one side after them."""
    assert renamed_by(shifted(1).run) == "maps"
    assert renamed_by(with_phase(healthy(), "validation", samples=replace(samples(IDS), target=(IDS + 1) % 4)).run) == "val"
    ids = np.arange(TRAIN)
    assert renamed_by(with_phase(healthy(), "train", samples=replace(samples(ids), target=3 - ids % 4)).run) == "train"


def test_a_model_that_renames_its_answers_on_both_sides_is_no_matter_of_labels() -> None:
    case = shifted(1, maps=False)
    assert found(CHECK.detect(case)).stage is None
    train = samples(np.arange(TRAIN), 0.9)
    turned = replace(train, prediction=(train.target + 3) % 4)
    for table, stage in ((train, None), (turned, "forward")):
        one = Case(replace(case.run, closing=Closing(rescores={"train_eval": table})))
        assert found(CHECK.detect(one)).stage == stage


def test_a_model_that_is_right_when_it_is_asked_again_needs_no_other_names() -> None:
    case = shifted(1, maps=False)
    last = case.run.last_validation
    assert last is not None
    again = replace(last.samples, prediction=last.samples.target)
    assert isinstance(CHECK.detect(Case(replace(case.run, closing=Closing(rescores={"val_eval": again})))), Clear)


def test_sound_run_and_a_model_that_learned_nothing_are_silent() -> None:
    assert isinstance(CHECK.detect(healthy()), Clear)
    rng = np.random.default_rng(1)
    table = replace(samples(IDS, 0.25), prediction=rng.integers(0, 4, VAL).astype(np.int32))
    case = with_phase(shifted(0, maps=False), "validation", samples=table)
    assert isinstance(CHECK.detect(case), Clear)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "validation")), NotApplicable)
    assert isinstance(CHECK.detect(without(healthy(), "train")), NotApplicable)


def test_a_model_that_answers_with_a_few_classes_is_not_renamed() -> None:
    """It learnt from batches of one class: its last classes fit some labels better than their own."""
    case = shifted(1, maps=False)
    table = case.run.last_validation.samples  # type: ignore[union-attr]
    target = (np.arange(len(table)) % 10).astype(np.int32)
    few = replace(table, target=target, prediction=np.where(target < 4, (target + 1) % 4, 0).astype(np.int32))
    assert isinstance(CHECK.detect(with_phase(case, "validation", samples=few)), NotApplicable)
