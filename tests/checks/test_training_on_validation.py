"""TRN412."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import TENSORS, found, healthy, quiet, samples, states, without
from valgap.checks.training.training_on_validation import CHECK
from valgap.types import Case, Clear, LoaderInfo, NotApplicable

STATISTICS = np.array(["running" in t[0] for t in TENSORS], float)


def stepping(steps: int) -> Case:
    """Every validation pass calls backward and steps."""
    run = healthy().run
    passes = tuple(
        replace(p, phase="train", backwards=5, optimizer_steps=steps) if p.phase == "validation" else p for p in run.passes
    )
    return Case(replace(run, passes=passes))


@pytest.mark.parametrize("steps", [1, 5])
def test_steps_on_validation_batches(steps: int) -> None:
    assert found(CHECK.detect(stepping(steps))).evidence[0].value == 3 * steps


def test_two_epochs_are_enough_and_the_images_of_training_are_no_validation() -> None:
    run = stepping(5).run
    assert found(CHECK.detect(Case(replace(run, passes=run.passes[:4])))).evidence[0].value == 10
    shared = tuple(replace(p, samples=samples(np.arange(150, 250))) if p.dataset == 1 else p for p in run.passes)
    assert quiet(CHECK.detect(Case(replace(run, passes=shared))))


def test_two_shuffled_training_sets_are_silent() -> None:
    run = stepping(5).run
    loaders = {0: run.loaders[0], 1: LoaderInfo(1, 1, 20, "RandomSampler", True, False, 0, 5)}
    passes = tuple(replace(p, modes=run.passes[0].modes) for p in run.passes)
    assert quiet(CHECK.detect(Case(replace(run, loaders=loaders, passes=passes))))


def test_statistics_moved_by_validation_are_a_hint_to_eva501() -> None:
    sound = healthy()
    moved = tuple(replace(s, sums=s.sums + STATISTICS * 10 * (i + 1)) for i, s in enumerate(states(np.zeros(len(TENSORS)), 7)))
    outcome = CHECK.detect(Case(replace(sound.run, states=moved)))
    assert quiet(outcome)
    assert not isinstance(outcome, Clear)


def test_sound_and_missing_parts() -> None:
    assert isinstance(CHECK.detect(healthy()), Clear)
    assert isinstance(CHECK.detect(without(healthy(), "train")), NotApplicable)
    assert isinstance(CHECK.detect(without(healthy(), "validation")), NotApplicable)
