"""TRN413."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import found, healthy, steps, with_phase, without
from valgap.checks.training.wrong_step_count import CHECK
from valgap.types import Case, Clear, Intervention, NotApplicable, Untreatable


@pytest.mark.parametrize("times", [2, 3])
def test_steps_that_reuse_a_gradient(times: int) -> None:
    backwards = np.array([1] + [0] * (times - 1)).repeat(1).tolist() * 10
    case = with_phase(
        healthy(), "train", optimizer_steps=10 * times, backwards=10, steps=steps(10 * times, backwards=np.array(backwards))
    )
    finding = found(CHECK.detect(case))
    assert finding.evidence[1].value == 3 * 10 * (times - 1)
    assert isinstance(CHECK.treat and CHECK.treat(case, finding), Intervention)


def test_no_step_at_all() -> None:
    none = steps(0, learning_rate=np.zeros((0, 1), np.float32))
    case = with_phase(healthy(), "train", optimizer_steps=0, backwards=10, steps=none)
    finding = found(CHECK.detect(case))
    assert isinstance(CHECK.treat and CHECK.treat(case, finding), Untreatable)


def test_accumulation_and_two_optimizers_are_silent() -> None:
    gathered = with_phase(
        healthy(), "train", optimizer_steps=5, backwards=20, zero_grads=5, steps=steps(5, backwards=np.full(5, 4))
    )
    assert isinstance(CHECK.detect(gathered), Clear)
    both = steps(20, optimizer=np.tile([0, 1], 10), backwards=np.tile([1, 0], 10))
    assert isinstance(CHECK.detect(with_phase(healthy(), "train", optimizer_steps=20, backwards=10, steps=both)), Clear)
    assert isinstance(CHECK.detect(healthy()), Clear)


def seldom(epochs: int, falls: bool) -> Case:
    """Two steps an epoch, each of the gradients of eight batches, under a loss that falls all the way or has come to rest."""
    case = with_phase(healthy(), "train", optimizer_steps=2, backwards=16, zero_grads=2, steps=steps(2, backwards=np.full(2, 8)))
    first = case.run.of_phase("train")[0]
    passes = []
    for n in range(epochs):
        level = 2.0 - 0.1 * n if falls else 0.3
        noise = np.random.default_rng(n).normal(0, 0.05, len(first.samples))
        passes.append(replace(first, index=n, samples=replace(first.samples, loss=(level + noise).astype(np.float32))))
    return Case(replace(case.run, passes=(*passes, *case.run.of_phase("validation"))))


def test_a_handful_of_steps_is_told_where_the_training_is_far_from_its_end() -> None:
    case = seldom(8, falls=True)
    finding = found(CHECK.detect(case))
    assert "16 optimizer steps in 8 epochs, one for 8 backward passes" in finding.summary
    assert isinstance(CHECK.treat and CHECK.treat(case, finding), Untreatable)
    assert isinstance(CHECK.detect(seldom(8, falls=False)), Clear)
    assert isinstance(CHECK.detect(seldom(3, falls=True)), Clear)  # a trial


def test_gradients_that_are_cleared_without_a_step() -> None:
    each = steps(10, backwards=np.full(10, 4, np.int32))
    often = with_phase(healthy(), "train", optimizer_steps=10, backwards=40, zero_grads=40, steps=each)
    finding = found(CHECK.detect(often))
    assert "cleared unused" in finding.summary and finding.confidence >= 0.9
    gathered = with_phase(healthy(), "train", optimizer_steps=10, backwards=40, zero_grads=10, steps=steps(10))
    assert isinstance(CHECK.detect(gathered), Clear)
    used = with_phase(healthy(), "train", optimizer_steps=10, backwards=40, zero_grads=40, steps=steps(10))
    assert isinstance(CHECK.detect(used), Clear)  # the weights were moved by the others
    scaled = with_phase(healthy(), "train", optimizer_steps=38, backwards=40, zero_grads=40, steps=steps(38))
    assert isinstance(CHECK.detect(scaled), Clear)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "train")), NotApplicable)
