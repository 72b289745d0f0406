"""MOD302."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.checks.cases import TENSORS, found, healthy, model, modes, quiet, states, with_phase, without
from valgap.checks.model.batchnorm_drift import CHECK, UNMEASURED_POINTS
from valgap.types import Case, Clear, Closing, Finding, NotApplicable, StateSnapshot

HEAD = np.array([t[0].startswith("fc") for t in TENSORS])
ARRAYS = ("is_parameter", "numel", "requires_grad", "in_optimizer", "got_gradient")
STATISTICS = np.array(["running" in t[0] for t in TENSORS])


def frozen(moving: Any, **numbers: float) -> Case:
    """A frozen backbone with a new head; ``moving`` says which tensors move."""
    return healthy(
        models={0: model(requires_grad=HEAD, in_optimizer=HEAD)},
        states=states(moving, 7),
        closing=Closing(numbers=numbers),
    )


@pytest.mark.parametrize("loss", [0.05, 0.1, 0.3])
def test_points_are_what_the_probe_loses(loss: float) -> None:
    case = frozen(HEAD | STATISTICS, probe_initial=0.8, probe_final=0.8 - loss, probe_n=100, probe_difference_se=0.01)
    finding = found(CHECK.detect(case))
    assert finding.severity_points == pytest.approx(100 * loss)
    assert finding.subjects == ("bn.running_mean", "bn.running_var")


@pytest.mark.parametrize(("loss", "error"), [(0.02, 0.014), (0.04, 0.1), (0.0, 0.02)])
def test_a_loss_that_is_hardly_felt_is_a_hint(loss: float, error: float) -> None:
    finding = CHECK.detect(
        frozen(HEAD | STATISTICS, probe_initial=0.8, probe_final=0.8 - loss, probe_n=100, probe_difference_se=error)
    )
    assert isinstance(finding, Finding)
    assert (finding.confidence < 0.5) == (loss < 0.03)


def test_layers_that_were_to_learn_later_are_not_frozen() -> None:
    """An optimizer that was not told of unfrozen layers is another fault; that their statistics move is meant."""
    late = model(in_optimizer=HEAD, released=~HEAD)
    case = healthy(models={0: late}, states=states(HEAD | STATISTICS, 7), closing=Closing())
    assert isinstance(CHECK.detect(case), Clear)
    assert isinstance(CHECK.detect(healthy(models={0: model(in_optimizer=HEAD)}, states=states(HEAD | STATISTICS, 7))), Finding)


def test_a_probe_says_nothing_where_later_layers_learn_too() -> None:
    """A stranger's sound fine-tuning of the last blocks: the probe lost 11 points, and training with held statistics won none."""
    moving = np.append(HEAD | STATISTICS, True)
    whole = model(requires_grad=HEAD, in_optimizer=HEAD)
    late = {name: np.append(getattr(whole, name), getattr(whole, name)[-1]) for name in ARRAYS}
    names, kinds = (*whole.tensor_names, "late.weight"), (*whole.layer_kind, "Conv2d")
    numbers = {"probe_initial": 0.62, "probe_final": 0.51, "probe_n": 160, "probe_difference_se": 0.02}
    norms = np.arange(1, len(moving) + 1, dtype=float)
    ends = StateSnapshot(0, "start", norms, norms), StateSnapshot(0, "pass", norms + moving, norms + moving)
    case = healthy(
        models={0: replace(whole, tensor_names=names, layer_kind=kinds, **late)}, states=ends, closing=Closing(numbers=numbers)
    )
    finding = CHECK.detect(case)
    assert isinstance(finding, Finding) and quiet(finding)


def test_without_probe_the_cost_is_said_to_be_assumed() -> None:
    finding = CHECK.detect(frozen(HEAD | STATISTICS))
    assert isinstance(finding, Finding) and finding.severity_points == UNMEASURED_POINTS
    assert quiet(finding) and "assumed" in finding.evidence[0].name


def test_one_of_two_statistics() -> None:
    moving = HEAD.copy()
    moving[3] = True
    finding = CHECK.detect(frozen(moving))
    assert isinstance(finding, Finding) and finding.subjects == ("bn.running_mean",)


def test_held_statistics_full_fine_tuning_and_validation_in_train_mode_are_silent() -> None:
    assert isinstance(CHECK.detect(frozen(HEAD)), Clear)
    assert isinstance(CHECK.detect(healthy()), Clear)
    held = with_phase(frozen(HEAD | STATISTICS), "train", modes=modes(1.0, batchnorm_training=0.0))
    assert isinstance(CHECK.detect(held), Clear)


def test_statistics_follow_the_layer_before_them_where_that_one_learns() -> None:
    """Only scale and shift of the normalisation are held."""
    convolution = np.array([t[0].startswith("conv") for t in TENSORS])
    assert isinstance(CHECK.detect(frozen(HEAD | STATISTICS | convolution)), Clear)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "train")), NotApplicable)
    assert isinstance(CHECK.detect(Case(replace(healthy().run, states=()))), NotApplicable)
