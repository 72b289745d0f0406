"""MOD309."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import TRAIN, found, healthy, measured, model, quiet, replayed, rescored, samples
from valgap.checks.model.excessive_dropout import CHECK
from valgap.types import Case, Clear, Finding, NotApplicable

IDS = np.arange(TRAIN)


def dropping(p: float, active: float, without: float) -> Case:
    """Train accuracy with Dropout active and in eval mode."""
    case = healthy(models={0: model(dropout=(p,))})
    return rescored(case, train_dropout=samples(IDS, active), train_eval=samples(IDS, without))


@pytest.mark.parametrize("gain", [0.05, 0.1, 0.3])
def test_points_are_what_training_without_it_gains(gain: float) -> None:
    case = replayed(dropping(0.95, 0.2, 0.5), 0.5, no_dropout=(0.5 + gain, 0.001))
    assert found(CHECK.detect(case)).severity_points == pytest.approx(100 * gain)


def test_without_a_replay_the_probe_gives_the_points() -> None:
    case = measured(replayed(dropping(0.95, 0.2, 0.5), 0.5), probe_final=0.75, probe_n=200)
    assert found(CHECK.detect(case)).severity_points == pytest.approx(25, abs=1)
    assert quiet(CHECK.detect(dropping(0.95, 0.2, 0.5)))


@pytest.mark.parametrize(("p", "reached", "told"), [(0.95, 0.25, True), (0.4, 0.25, False), (0.95, 0.6, False)])
def test_so_little_comes_through_that_nothing_is_learnt(p: float, reached: float, told: bool) -> None:
    case = measured(replayed(dropping(p, reached, reached), reached), probe_final=reached, probe_start=0.7, probe_n=200)
    outcome = CHECK.detect(case)
    assert isinstance(outcome, Finding) == told
    assert not isinstance(outcome, Finding) or (outcome.severity_points > 30 and outcome.confidence >= 0.7)


def test_moderate_dropout_is_silent() -> None:
    case = replayed(dropping(0.5, 0.75, 0.9), 0.8, no_dropout=(0.82, 0.3))
    assert isinstance(CHECK.detect(case), Clear)
    assert isinstance(CHECK.detect(healthy(models={0: model(dropout=())})), Clear)


def test_an_underfit_that_dropout_did_not_make() -> None:
    case = measured(replayed(dropping(0.2, 0.5, 0.55), 0.5), probe_final=0.75, probe_n=200)
    assert isinstance(CHECK.detect(case), Clear)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(healthy()), NotApplicable)
    assert isinstance(CHECK.detect(Case(replace(healthy().run, closing=None))), NotApplicable)
