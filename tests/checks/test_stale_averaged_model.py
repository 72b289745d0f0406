"""MOD311."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import TRAIN, VAL, found, healthy, model, samples, with_phase, without
from valgap.checks.model.stale_averaged_model import CHECK, passes_of
from valgap.types import Case, Clear, Closing, NotApplicable

IDS = np.arange(TRAIN, TRAIN + VAL)


def averaged(copy: float, trained: float, **changes: object) -> Case:
    """Validation of model 1, a copy of the trained model 0; both accuracies on the same images."""
    case = with_phase(healthy(), "validation", model=1, samples=samples(IDS, copy))
    models = {0: model(), 1: replace(model(id=1, trained=False), **changes)}  # type: ignore[arg-type]
    closing = Closing(rescores={"val_eval": samples(IDS, copy), "val_trained": samples(IDS, trained)})
    return Case(replace(case.run, models=models, closing=closing))


@pytest.mark.parametrize("lag", [0.1, 0.3, 0.6])
def test_points_are_what_the_trained_model_has_more(lag: float) -> None:
    assert found(CHECK.detect(averaged(0.8 - lag, 0.8))).severity_points == pytest.approx(100 * lag)


@pytest.mark.parametrize(("moves", "stage"), [(1.0, None), (0.0, "forward")])
def test_it_is_the_choice_of_weights_unless_their_statistics_never_moved(moves: float, stage: str | None) -> None:
    case = averaged(0.3, 0.8)
    copy = case.run.models[1]
    base = np.ones(len(copy.tensor_names))
    states = tuple(replace(s, sums=base + moves * i, norms=base) for i, s in enumerate(case.run.states))
    passes = tuple(replace(p, model=1) if p.phase == "validation" else p for p in case.run.passes)
    case = Case(replace(case.run, passes=passes, states=states))
    assert len(passes_of(case.run, copy)) > 1 and CHECK.stage == "choose"
    assert found(CHECK.detect(case)).stage == stage


@pytest.mark.parametrize(("moves", "stage"), [(1.0, None), (0.0, "forward")])
def test_statistics_of_a_copy_that_was_validated_once_are_held_against_the_first_ones(moves: float, stage: str | None) -> None:
    case = averaged(0.3, 0.8)
    last = case.run.passes[-1]
    run = replace(case.run, passes=tuple(p if p is last else replace(p, model=0) for p in case.run.passes))
    assert last.phase == "validation" and passes_of(run, run.models[1]) == [last]
    begun = run.states[0]
    assert (begun.model, begun.moment) == (0, "start")
    states = tuple(
        s if i == 0 else replace(s, sums=begun.sums + moves, norms=begun.norms + moves) for i, s in enumerate(run.states)
    )
    assert found(CHECK.detect(Case(replace(run, states=states)))).stage == stage


def test_better_or_nearly_equal_copies_are_silent() -> None:
    assert isinstance(CHECK.detect(averaged(0.85, 0.8)), Clear)
    assert isinstance(CHECK.detect(averaged(0.78, 0.8)), Clear)


def test_another_network_is_no_copy() -> None:
    assert isinstance(CHECK.detect(averaged(0.2, 0.8, numel=np.arange(1, 8))), Clear)
    assert isinstance(CHECK.detect(healthy()), Clear)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "train")), NotApplicable)
    case = averaged(0.2, 0.8)
    assert isinstance(CHECK.detect(Case(replace(case.run, closing=None))), NotApplicable)
