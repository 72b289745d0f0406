"""TRN401."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import TENSORS, found, healthy, measured, model, quiet, replayed, trained_with, without
from tests.checks.test_excessive_weight_decay import shrunk
from valgap.checks.training.excessive_weight_decay import CHECK as DECAY
from valgap.checks.training.learning_rate_too_high import CHECK
from valgap.checks.training.too_few_epochs import CHECK as LENGTH
from valgap.types import Case, Clear, Finding, NotApplicable


def rough(ratio: float, loss: float, probe: float = 0.8, reached: float = 0.3) -> Case:
    """A run with updates of this size, this training loss, and a probe on its features."""
    case = measured(replayed(healthy(), reached), probe_final=probe, probe_n=200)
    passes = []
    for p in case.run.passes:
        if p.phase == "train":
            first = (p.samples.batch == 0) & (p.index == 0)  # a guess, before any step
            table = replace(p.samples, loss=np.where(first, np.log(4), loss).astype(np.float32))
            p = replace(p, samples=table, steps=replace(p.steps, update_ratio=np.full(len(p.steps), ratio, np.float32)))
        passes.append(p)
    run = replace(case.run, passes=tuple(passes))
    numbers = {k: v for k, v in case.run.closing.numbers.items() if "replay" not in k}  # type: ignore[union-attr]
    return Case(replace(run, closing=replace(run.closing, numbers=numbers)))  # type: ignore[type-var]


@pytest.mark.parametrize("gain", [0.06, 0.2, 0.4])
def test_points_are_what_a_tenth_of_the_rate_gains(gain: float) -> None:
    case = replayed(healthy(), 0.5, rate_tenth=(0.5 + gain, 0.001))
    assert found(CHECK.detect(case)).severity_points == pytest.approx(100 * gain)


@pytest.mark.parametrize("ratio", [0.04, 0.5, 10.0])
def test_large_updates_and_a_loss_that_does_not_fall(ratio: float) -> None:
    assert found(CHECK.detect(rough(ratio, 1.4))).severity_points == pytest.approx(50, abs=1)


def test_features_that_training_made_worse() -> None:
    lost = measured(rough(0.5, 1.4, probe=0.32), probe_start=0.5, probe_end=0.2, probe_start_se=0.05)
    assert found(CHECK.detect(lost)).severity_points == pytest.approx(20, abs=1)


def test_a_loss_that_rose_is_a_hint_where_the_answers_are_as_good_as_before() -> None:
    """Far above where it began, with updates that are large; what a probe reaches tells whether that cost anything."""
    assert found(CHECK.detect(rough(0.5, 9.0, probe=0.5, reached=0.3))).confidence == 0.75
    fine = rough(0.5, 9.0, probe=0.32, reached=0.3)
    assert found(CHECK.detect(fine)).confidence == 0.75  # the features themselves may be spoilt: what they were is not known
    assert quiet(CHECK.detect(measured(fine, probe_start=0.25, probe_end=0.32, probe_start_se=0.03)))
    spoilt = measured(fine, probe_start=0.6, probe_end=0.32, probe_start_se=0.03)
    assert found(CHECK.detect(spoilt)).severity_points == pytest.approx(30, abs=1)


def test_sound_rates_are_silent() -> None:
    assert isinstance(CHECK.detect(replayed(healthy(), 0.8, rate_tenth=(0.7, 0.01))), Clear)
    assert isinstance(CHECK.detect(replayed(healthy(), 0.7, rate_tenth=(0.76, 0.2))), Clear)
    assert isinstance(CHECK.detect(rough(1e-3, 1.4)), Clear)  # the loss does not fall, and the rate is not why
    assert isinstance(CHECK.detect(rough(0.5, 0.4)), Clear)  # large updates of a small new head
    assert quiet(CHECK.detect(rough(0.5, 1.4, probe=0.32)))


def test_tiny_batches_are_named_as_such() -> None:
    case = replayed(healthy(), 0.5, rate_tenth=(0.8, 0.001))
    passes = tuple(replace(p, batch_sizes=np.full(len(p.batch_sizes), 2)) for p in case.run.passes)
    assert isinstance(CHECK.detect(Case(replace(case.run, passes=passes))), Clear)


def test_a_replay_that_does_not_repeat_the_run_says_nothing() -> None:
    case = replayed(healthy(), 0.5, rate_tenth=(0.8, 0.001))
    assert isinstance(CHECK.detect(measured(case, replay_recorded=0.75)), Clear)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "train")), NotApplicable)


def test_weights_that_decay_shrinks_are_named_as_such() -> None:
    hot = rough(0.5, 1.4)
    shrinking = shrunk(trained_with(hot, "SGD", 0.1, weight_decay=1.0), 0.1)
    assert isinstance(CHECK.detect(shrinking), Clear) and isinstance(DECAY.detect(shrinking), Finding)
    assert found(CHECK.detect(shrunk(trained_with(hot, "SGD", 0.1, weight_decay=1e-4), 0.1)))


@pytest.mark.parametrize(
    ("loss", "whole", "named"), [(3.0, True, True), (1.5, True, False), (200.0, False, True), (9.0, False, False)]
)
def test_training_that_ends_far_above_a_guess(loss: float, whole: bool, named: bool) -> None:
    # a guess costs log 4 = 1.39 nats here
    case = rough(0.005, loss)
    head = np.array([t[0].startswith("fc") for t in TENSORS])
    run = case.run if whole else replace(case.run, models={0: model(requires_grad=head, in_optimizer=head)})
    outcome = CHECK.detect(Case(run))
    assert isinstance(outcome, Finding) == named
    assert isinstance(LENGTH.detect(Case(run)), Clear)
