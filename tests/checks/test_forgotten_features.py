"""MOD304."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import found, healthy, measured, model, quiet, replayed, with_phase, without
from valgap.checks.model.forgotten_features import CHECK
from valgap.types import Case, Clear, NotApplicable


def tuned(before: float, after: float, reached: float, error: float = 0.03) -> Case:
    """A fine-tuned run with probes before and after."""
    return measured(replayed(healthy(), reached), probe_start=before, probe_end=after, probe_start_se=error, probe_start_n=100)


@pytest.mark.parametrize("lost", [0.15, 0.3, 0.6])
def test_points_are_what_the_first_features_gave_more(lost: float) -> None:
    finding = found(CHECK.detect(tuned(0.8, 0.8 - lost, 0.8 - lost)))
    assert finding.severity_points == pytest.approx(100 * lost)


def test_improved_unchanged_and_unneeded_features_are_silent() -> None:
    assert isinstance(CHECK.detect(tuned(0.7, 0.85, 0.85)), Clear)
    assert isinstance(CHECK.detect(tuned(0.7, 0.68, 0.6)), Clear)
    assert isinstance(CHECK.detect(tuned(0.7, 0.55, 0.8)), Clear)  # the head does better than either probe


def test_random_first_features_have_nothing_to_forget() -> None:
    assert isinstance(CHECK.detect(tuned(0.3, 0.6, 0.6)), Clear)
    random = tuned(0.4, 0.1, 0.1)
    assert isinstance(CHECK.detect(Case(replace(random.run, models={0: model(pretrained=False)}))), Clear)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(healthy()), NotApplicable)
    assert isinstance(CHECK.detect(without(healthy(), "train")), NotApplicable)


def test_batches_of_two_images_are_named_instead() -> None:
    lost = tuned(0.8, 0.5, 0.5)
    few = with_phase(lost, "train", batch_sizes=np.full(100, 2))
    assert quiet(CHECK.detect(few)) and not quiet(CHECK.detect(lost))


def test_weights_that_hardly_moved_have_forgotten_nothing() -> None:
    case = tuned(0.6, 0.4, 0.3)
    assert not quiet(CHECK.detect(case))
    passes = tuple(
        replace(p, steps=replace(p.steps, update_ratio=np.full(len(p.steps), 1e-6, np.float32))) if p.phase == "train" else p
        for p in case.run.passes
    )
    assert isinstance(CHECK.detect(replace(case, run=replace(case.run, passes=passes))), Clear)
