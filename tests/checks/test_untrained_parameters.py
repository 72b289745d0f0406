"""MOD303."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import TENSORS, found, healthy, model, states, without
from valgap.checks.untrained_parameters import CHECK
from valgap.types import Case, Clear, NotApplicable

HEAD = np.array([t[0].startswith("fc") for t in TENSORS])
CONV = np.array([t[0].startswith("conv") for t in TENSORS])
EVERY = np.ones(len(TENSORS), bool)
PARAMETER = np.array([t[1] for t in TENSORS])


@pytest.mark.parametrize("stuck", [HEAD, CONV, HEAD | CONV])
def test_parameters_missing_from_the_optimizer(stuck: np.ndarray) -> None:  # type: ignore[type-arg]
    case = healthy(models={0: model(in_optimizer=PARAMETER & ~stuck)}, states=states(EVERY & ~stuck, 7))
    finding = found(CHECK.detect(case))
    assert finding.subjects == tuple(t[0] for t, s in zip(TENSORS, stuck, strict=True) if s)
    sizes = np.array([t[3] for t in TENSORS])
    assert finding.evidence[0].value == pytest.approx(sizes[stuck].sum() / sizes[PARAMETER].sum())


def test_nothing_moves() -> None:
    assert "no trainable parameter" in found(CHECK.detect(healthy(states=states(0 * EVERY, 7)))).summary


def test_head_without_gradient() -> None:
    case = healthy(models={0: model(got_gradient=PARAMETER & ~HEAD)}, states=states(EVERY & ~HEAD, 7))
    assert found(CHECK.detect(case)).subjects == ("fc.weight", "fc.bias")


def test_sound_and_frozen_layers_are_silent() -> None:
    assert isinstance(CHECK.detect(healthy()), Clear)
    frozen = healthy(models={0: model(requires_grad=HEAD, in_optimizer=HEAD)}, states=states(HEAD, 7))
    assert isinstance(CHECK.detect(frozen), Clear)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "train")), NotApplicable)
    assert isinstance(CHECK.detect(Case(replace(healthy().run, states=()))), NotApplicable)
