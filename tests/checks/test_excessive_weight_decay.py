"""TRN406."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import TENSORS, found, healthy, measured, quiet, replayed, trained_with, without
from valgap.checks.training.excessive_weight_decay import CHECK, kept_norm
from valgap.types import Case, Clear, Intervention, NotApplicable, StateSnapshot


def shrunk(case: Case, kept: float) -> Case:
    """The case whose weights ended at this share of their first norm."""
    norms = np.arange(1, len(TENSORS) + 1, dtype=float)
    states = (StateSnapshot(0, "start", norms, norms), StateSnapshot(0, "pass", kept * norms, kept * norms))
    return Case(replace(case.run, states=states))


@pytest.mark.parametrize("gain", [0.05, 0.3])
def test_points_are_what_less_decay_gains(gain: float) -> None:
    case = trained_with(replayed(healthy(), 0.5, **{"decay_tenth": (0.5 + gain, 0.001)}), "Adam", 1e-3, weight_decay=1.0)
    finding = found(CHECK.detect(case))
    assert finding.severity_points == pytest.approx(100 * gain)
    assert CHECK.treat is not None
    assert CHECK.treat(case, finding) == Intervention("optimizer_settings", {"values": {"weight_decay": 0.1}, "phase": "train"})


@pytest.mark.parametrize("kept", [0.1, 0.5])
def test_weights_that_shrink_as_decay_makes_them(kept: float) -> None:
    case = measured(replayed(healthy(), 0.4), probe_final=0.8, probe_n=200)
    case = shrunk(trained_with(case, "SGD", 0.1, weight_decay=1.0), kept)
    assert kept_norm(case.run) == pytest.approx(kept)
    assert found(CHECK.detect(case)).severity_points == pytest.approx(40, abs=1)


def test_usual_decay_and_shrinking_without_decay_are_silent() -> None:
    assert isinstance(CHECK.detect(trained_with(healthy(), "SGD", 0.1, weight_decay=5e-4)), Clear)
    assert isinstance(CHECK.detect(trained_with(healthy(), "AdamW", 1e-3, weight_decay=0.05)), Clear)
    assert quiet(CHECK.detect(shrunk(trained_with(healthy(), "SGD", 1e-3, weight_decay=0.01), 0.5)))
    gained = replayed(healthy(), 0.8, **{"decay_tenth": (0.81, 0.6)})
    assert isinstance(CHECK.detect(trained_with(gained, "Adam", 1e-3, weight_decay=1.0)), Clear)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "train")), NotApplicable)
