"""MOD310."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import TENSORS, found, healthy, model, samples, train_pass, val_pass, without
from valgap.checks.model.shared_initial_state import CHECK
from valgap.types import Case, Clear, NotApplicable, StateSnapshot, WeightsLoaded

EVERY = np.arange(300)


def folds(models: list[int], starts: dict[int, float], accuracy: tuple[float, ...] = (0.6, 0.8, 0.9)) -> Case:
    """Three folds over the same images; ``models`` says which model each uses, ``starts`` the state in which each begins."""
    passes, states = [], []
    for number, start in starts.items():
        states.append(StateSnapshot(number, "start", np.full(len(TENSORS), start), np.full(len(TENSORS), start)))
    for fold, number in enumerate(models):
        own = fold == EVERY % 3
        end = StateSnapshot(number, "pass", np.full(len(TENSORS), 10.0 + fold), np.full(len(TENSORS), 10.0 + fold))
        states.append(end)
        place = len(states) - 1
        passes.append(train_pass(2 * fold, fold, EVERY[~own], dataset=2 * fold, model=number, state=place))
        table = samples(EVERY[own], accuracy[fold])
        passes.append(
            val_pass(2 * fold + 1, fold + 1, EVERY[own], dataset=2 * fold + 1, model=number, state=place, samples=table)
        )
    run = healthy().run
    return Case(replace(run, passes=tuple(passes), states=tuple(states), models={n: model(id=n) for n in set(models)}))


def test_one_model_through_all_folds() -> None:
    finding = found(CHECK.detect(folds([0, 0, 0], {0: 1.0})))
    assert finding.evidence[0].value == 2
    assert finding.severity_points == pytest.approx(100 * (0.6 - 0.9), abs=1)


def test_a_new_object_that_begins_where_the_last_one_ended() -> None:
    found(CHECK.detect(folds([0, 1, 2], {0: 1.0, 1: 10.0, 2: 11.0})))


def test_fresh_models_and_a_second_stage_are_silent() -> None:
    assert isinstance(CHECK.detect(folds([0, 1, 2], {0: 1.0, 1: 1.0, 2: 1.0})), Clear)
    assert isinstance(CHECK.detect(healthy()), Clear)


def test_a_model_whose_first_weights_are_loaded_again_is_fresh() -> None:
    case = folds([0, 0, 0], {0: 1.0})
    loads = tuple(WeightsLoaded("Net", False, True, 7, 7, 0, 0, (), after_pass=i, changed=True, state_of_pass=-2) for i in (1, 3))
    assert isinstance(CHECK.detect(Case(replace(case.run, weights_loaded=loads))), Clear)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "validation")), NotApplicable)
