"""EVA502."""

from dataclasses import replace

import pytest

from tests.checks.cases import found, healthy, model, modes, with_phase, without
from valgap.checks.evaluation.eval_mode_at_training import CHECK
from valgap.types import Case, Clear, NotApplicable


def late(count: int) -> Case:
    """The last ``count`` training passes run in eval mode."""
    run = healthy().run
    first = 3 - count
    passes = tuple(
        replace(p, modes=modes(0.0, grad_enabled=1.0)) if p.phase == "train" and p.epoch >= first else p for p in run.passes
    )
    return Case(replace(run, passes=passes))


@pytest.mark.parametrize("count", [1, 2])
def test_later_epochs_in_eval_mode(count: int) -> None:
    assert found(CHECK.detect(late(count))).evidence[0].value == count


def test_sound_and_held_from_the_start_are_silent() -> None:
    assert isinstance(CHECK.detect(healthy()), Clear)
    assert isinstance(CHECK.detect(late(3)), Clear)
    held = with_phase(healthy(), "train", modes=modes(1.0, batchnorm_training=0.0))
    assert isinstance(CHECK.detect(held), Clear)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "train")), NotApplicable)
    run = healthy().run
    assert isinstance(CHECK.detect(Case(replace(run, passes=run.passes[:2]))), NotApplicable)


def test_a_network_from_scratch_that_is_never_in_train_mode() -> None:
    held = with_phase(healthy(), "train", modes=modes(0.0, grad_enabled=1.0))
    scratch = Case(replace(held.run, models={0: model(pretrained=False, expected_size=None)}))
    assert "began at random" in found(CHECK.detect(scratch)).summary
    assert isinstance(CHECK.detect(held), Clear)  # pretrained statistics are there to be used
    published = Case(replace(held.run, models={0: model(pretrained=False, expected_size=(3, 224, 224))}))
    assert isinstance(CHECK.detect(published), Clear)  # it lacks its weights: MOD301
