"""MOD301."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import EPOCHS, TENSORS, found, healthy, model, modes, quiet, states, with_phase, without
from tests.checks.test_stage_faults import Known
from valgap.checks.model.weights_not_loaded import CHECK
from valgap.types import Case, Clear, Compared, Measured, NotApplicable, WeightsLoaded

HEAD = np.array([t[0].startswith("fc") for t in TENSORS])


def load(matched: int, given: int = 100) -> WeightsLoaded:
    return WeightsLoaded("Net", True, False, given, matched, 100 - matched, given - matched, ("module.conv.weight",))


@pytest.mark.parametrize("matched", [0, 10, 40])
def test_skipped_load(matched: int) -> None:
    fresh = model(pretrained=False, fresh_batchnorm=1.0, loaded_fraction=matched / 100)
    finding = found(CHECK.detect(healthy(models={0: fresh}, weights_loaded=(load(matched),))))
    assert finding.evidence[0].value == matched
    assert finding.subjects == ("module.conv.weight",)


@pytest.mark.parametrize(
    ("gives", "points"), [(Measured(24.0, 15.0, 33.0), 24.0), (Measured(-3.0, -9.0, 3.0), 15.0), (None, 15.0)]
)
def test_the_cost_is_what_a_published_network_makes_of_the_same_tensors(gives: Measured | None, points: float) -> None:
    """Where that was measured, and is any more than what the program reaches."""
    fresh = model(pretrained=False, fresh_batchnorm=1.0, loaded_fraction=0.1)
    case = healthy(models={0: fresh}, weights_loaded=(load(10),))
    finding = found(CHECK.detect(replace(case, stages=Known(forward=Compared("sound", "", published=gives)))))
    assert finding.severity_points == points
    assert any(e.assumed for e in finding.evidence) == (points == 15.0)


@pytest.mark.parametrize("fresh", [0.8, 1.0])
def test_frozen_layers_that_are_new(fresh: float) -> None:
    new = model(pretrained=False, fresh_batchnorm=fresh, requires_grad=HEAD)
    still = states(HEAD.astype(float), 2 * EPOCHS + 1)
    assert found(CHECK.detect(healthy(models={0: new}, states=still))).evidence[0].value == fresh
    # They learned in an earlier task of the program, and were frozen then.
    outcome = CHECK.detect(healthy(models={0: new}))
    assert isinstance(outcome, Clear) and "trained these layers itself" in outcome.summary


def test_sound_other_head_and_from_scratch_are_silent() -> None:
    assert isinstance(CHECK.detect(healthy()), Clear)
    assert isinstance(CHECK.detect(healthy(weights_loaded=(load(98),))), Clear)
    scratch = model(pretrained=False, fresh_batchnorm=1.0, loaded_fraction=float("nan"))
    assert quiet(CHECK.detect(healthy(models={0: scratch})))


def test_batchnorm_held_at_what_it_began_with() -> None:
    new = model(pretrained=False, fresh_batchnorm=1.0, loaded_fraction=float("nan"))
    held = with_phase(Case(replace(healthy().run, models={0: new})), "train", modes=modes(0.0, grad_enabled=1.0))
    assert "held in eval mode" in found(CHECK.detect(held)).summary
    own = Case(replace(held.run, models={0: replace(new, expected_size=None)}))  # no published network: EVA502
    assert quiet(CHECK.detect(own))


@pytest.mark.parametrize("fresh", [0.0, 0.3])
def test_a_part_that_no_load_filled(fresh: float) -> None:
    """A fifth of the tensors are as they were made, some BatchNorm layers with them or none."""
    newness = np.where(np.arange(len(TENSORS)) < 2, 1, 0).astype(np.int8)
    part = (load(80, given=80),)
    own = model(fresh_batchnorm=fresh, newness=newness)
    frozen = replace(own, requires_grad=HEAD)
    finding = found(CHECK.detect(healthy(models={0: frozen}, weights_loaded=part)))
    assert "do not learn" in finding.summary and finding.confidence > 0.9
    assert found(CHECK.detect(healthy(models={0: replace(own, expected_whole=True)}, weights_loaded=part)))
    assert quiet(CHECK.detect(healthy(models={0: own}, weights_loaded=part)))  # new layers of one's own, which learn
    assert quiet(CHECK.detect(healthy(models={0: frozen}, weights_loaded=(*part, load(100)))))
    given = replace(frozen, fresh_batchnorm=0.0, newness=np.zeros(len(TENSORS), np.int8))
    assert quiet(CHECK.detect(healthy(models={0: given}, weights_loaded=part)))


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "train")), NotApplicable)
    unknown = model(pretrained=None, fresh_batchnorm=float("nan"), loaded_fraction=float("nan"))
    assert isinstance(CHECK.detect(healthy(models={0: unknown})), NotApplicable)


def test_before_any_step_was_seen_nobody_knows_what_is_in_an_optimizer() -> None:
    newness = np.where(HEAD, 1, 0).astype(np.int8)
    new_head = model(fresh_batchnorm=0.3, newness=newness, in_optimizer=np.zeros(len(TENSORS), bool))
    assert quiet(CHECK.detect(healthy(models={0: new_head}, weights_loaded=(load(80, given=80),))))
    held = replace(new_head, requires_grad=~HEAD)
    assert found(CHECK.detect(healthy(models={0: held}, weights_loaded=(load(80, given=80),))))
