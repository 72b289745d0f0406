"""TRN408."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import found, healthy, samples, with_phase, without
from valgap.checks.training.unshuffled_training import CHECK, classes_per_batch
from valgap.types import Case, Clear, NotApplicable


def ordered(classes: int) -> Case:
    """200 images sorted by class, in batches of 20."""
    table = samples(np.arange(200), 0.8)
    target = np.repeat(np.arange(classes), -(-200 // classes))[:200].astype(np.int32)
    return with_phase(healthy(), "train", samples=replace(table, target=target))


@pytest.mark.parametrize("classes", [2, 4, 10])
def test_sorted_batches(classes: int) -> None:
    finding = found(CHECK.detect(ordered(classes)))
    observed = float(finding.evidence[0].value or 0)
    assert 1 <= observed < 1.5


@pytest.mark.parametrize("classes", [2, 4, 10])
def test_expectation_agrees_with_shuffling(classes: int) -> None:
    rng = np.random.default_rng(0)
    target = np.repeat(np.arange(classes), 400 // classes)
    batch = np.arange(len(target)) // 16
    seen = np.mean([classes_per_batch(rng.permutation(target), batch, target)[0] for _ in range(50)])
    assert classes_per_batch(target, batch, target)[1] == pytest.approx(seen, rel=0.02)


def test_sound_and_balanced_batches_are_silent() -> None:
    assert isinstance(CHECK.detect(healthy()), Clear)
    balanced = with_phase(healthy(), "train", samples=samples(np.arange(200), 0.8))  # 0, 1, 2, 3, 0, 1, ...
    assert isinstance(CHECK.detect(balanced), Clear)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "train")), NotApplicable)
    assert isinstance(CHECK.detect(with_phase(healthy(), "train", samples=samples(np.arange(10)))), NotApplicable)


def test_validation_that_steps_is_not_called_unshuffled() -> None:
    in_order = with_phase(healthy(), "validation", backwards=5, optimizer_steps=5)
    table = in_order.run.last_validation
    assert table is not None
    blocks = replace(table.samples, target=np.sort(table.samples.target))
    passes = tuple(replace(p, phase="train", samples=blocks) if p.phase == "validation" else p for p in in_order.run.passes)
    assert isinstance(CHECK.detect(Case(replace(in_order.run, passes=passes))), Clear)
