"""MOD305."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import TENSORS, found, healthy, measured, model, quiet, with_phase
from tests.checks.cases import inputs as inputs_of
from valgap.checks.model.frozen_too_much import CHECK
from valgap.types import Case, Clear, NotApplicable

HEAD = np.array([t[0].startswith("fc") for t in TENSORS])


def frozen(middle: float, last: float, error: float = 0.03) -> Case:
    """A frozen network with probes on an earlier and on the last layer."""
    case = healthy(models={0: model(requires_grad=HEAD, in_optimizer=HEAD)})
    return measured(case, probe_middle=middle, probe_final=last, probe_middle_se=error, probe_n=100)


@pytest.mark.parametrize("better", [0.1, 0.2, 0.3])
def test_points_are_what_the_earlier_layer_has_more(better: float) -> None:
    assert found(CHECK.detect(frozen(0.6 + better, 0.6))).severity_points == pytest.approx(100 * better)


def test_fitting_features_and_noise_are_silent() -> None:
    assert isinstance(CHECK.detect(frozen(0.5, 0.7)), Clear)
    assert isinstance(CHECK.detect(frozen(0.73, 0.7)), Clear)
    assert isinstance(CHECK.detect(frozen(0.8, 0.7, error=0.06)), Clear)


def test_small_inputs_spoil_the_last_layer_by_themselves() -> None:
    case = frozen(0.9, 0.6)
    inputs = with_phase(case, "validation", inputs=replace(inputs_of(), shape=(3, 64, 64)))
    assert quiet(CHECK.detect(inputs))


def test_a_trained_network_can_adapt() -> None:
    numbers = {"probe_middle": 0.9, "probe_final": 0.6, "probe_middle_se": 0.03, "probe_n": 100.0}
    assert isinstance(CHECK.detect(measured(healthy(), **numbers)), Clear)


def test_features_that_drift_spoilt_are_left_to_its_own_check() -> None:
    assert isinstance(CHECK.detect(measured(frozen(0.9, 0.6), probe_initial=0.8)), NotApplicable)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(healthy()), NotApplicable)
