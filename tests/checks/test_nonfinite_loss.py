"""TRN409."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import found, healthy, inputs, steps, with_phase, without
from valgap.checks.training.nonfinite_loss import CHECK
from valgap.types import Case, Clear, Finding, NotApplicable


def bad_losses(count: int) -> Case:
    losses = np.linspace(1, 0.5, 20).astype(np.float32)
    losses[20 - count :] = np.nan
    return with_phase(healthy(), "train", steps=steps(20, loss=losses))


@pytest.mark.parametrize("count", [1, 5, 19])
def test_losses_that_are_nan(count: int) -> None:
    finding = found(CHECK.detect(bad_losses(count)))
    assert finding.evidence[1].value == 3 * count  # in each of three epochs
    assert finding.evidence[-1].value == f"step {20 - count}"


@pytest.mark.parametrize(("share", "lost"), [(1.0, True), (0.6, True), (0.4, False), (0.0, False)])
def test_answers_that_are_lost_after_the_last_step(share: float, lost: bool) -> None:
    """A few infinite losses (a class that is masked out) are no blow-up."""
    case = healthy()
    last = case.run.last_validation
    assert last is not None
    loss = last.samples.loss.copy()
    loss[: round(share * len(loss))] = np.nan
    passes = tuple(replace(p, samples=replace(p.samples, loss=loss)) if p is last else p for p in case.run.passes)
    outcome = CHECK.detect(Case(replace(case.run, passes=passes)))
    assert isinstance(outcome, Finding if lost else Clear)
    if isinstance(outcome, Finding):
        assert "first in the validation" in outcome.summary


def test_steps_without_a_known_loss_are_no_fault_and_infinite_ones_are() -> None:
    losses = np.full(20, np.nan, np.float32)
    assert isinstance(CHECK.detect(with_phase(healthy(), "train", steps=steps(20, loss=losses))), Clear)
    losses[[4, 9]] = np.inf, -np.inf
    assert found(CHECK.detect(with_phase(healthy(), "train", steps=steps(20, loss=losses)))).evidence[1].value == 3 * 2


def test_samples_of_training_whose_loss_is_not_finite_are_counted() -> None:
    last = healthy().run.last_train
    assert last is not None
    loss = last.samples.loss.copy()
    loss[:4] = np.nan, np.inf, np.nan, np.inf
    finding = found(CHECK.detect(with_phase(healthy(), "train", samples=replace(last.samples, loss=loss))))
    assert (finding.evidence[2].value, finding.evidence[2].n) == (3 * 4, 3 * 200)
    assert "first in the loss" in finding.summary and finding.evidence[1].value == 0


def test_inputs_come_first() -> None:
    case = with_phase(bad_losses(3), "train", inputs=replace(inputs(), nonfinite=2))
    assert "inputs" in found(CHECK.detect(case)).summary


def test_sound_and_a_few_skipped_steps_of_mixed_precision_are_silent() -> None:
    assert isinstance(CHECK.detect(healthy()), Clear)
    flags = (np.arange(20) < 2).astype(np.int8)
    assert isinstance(CHECK.detect(with_phase(healthy(), "train", steps=steps(20, nonfinite_grad=flags))), Clear)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "train")), NotApplicable)
