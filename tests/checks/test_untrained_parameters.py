"""MOD303."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import TENSORS, found, healthy, measured, model, states, without
from valgap.checks.model.untrained_parameters import CHECK
from valgap.types import Case, Clear, NotApplicable, StateSnapshot

HEAD = np.array([t[0].startswith("fc") for t in TENSORS])
CONV = np.array([t[0].startswith("conv") for t in TENSORS])
NORM = np.array([t[0].startswith("bn") for t in TENSORS])
EVERY = np.ones(len(TENSORS), bool)
PARAMETER = np.array([t[1] for t in TENSORS])
NEW, GIVEN = np.ones(len(TENSORS), np.int8), np.zeros(len(TENSORS), np.int8)
HEAD_NEW = np.where(HEAD, 1, 0).astype(np.int8)
HOW = {
    "left out": lambda stuck: {"in_optimizer": PARAMETER & ~stuck},
    "no gradient": lambda stuck: {"got_gradient": PARAMETER & ~stuck},
    "rate 0": lambda stuck: {"highest_rate": np.where(stuck, 0.0, 0.1)},
}


def case(stuck: np.ndarray, how: str = "left out", **facts: object) -> Case:  # type: ignore[type-arg]
    return healthy(models={0: model(**{**HOW[how](stuck), **facts})}, states=states(EVERY & ~stuck, 7))


@pytest.mark.parametrize("how", HOW)
def test_a_new_head_that_never_learns_by_whatever_means(how: str) -> None:
    finding = found(CHECK.detect(case(HEAD, how, newness=HEAD_NEW)))
    assert finding.subjects == ("fc.weight", "fc.bias")
    sizes = np.array([t[3] for t in TENSORS])
    assert finding.evidence[0].value == pytest.approx(sizes[HEAD].sum() / sizes[PARAMETER].sum())
    assert {"left out": "in no optimizer", "no gradient": "no gradient", "rate 0": "rate of 0"}[how] in finding.summary


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("stuck", [CONV, CONV | NORM, NORM])
def test_given_weights_held_by_plan_are_meant(stuck: np.ndarray, how: str) -> None:  # type: ignore[type-arg]
    assert isinstance(CHECK.detect(case(stuck & PARAMETER, how, newness=HEAD_NEW)), Clear)


@pytest.mark.parametrize("how", HOW)
def test_new_layers_that_never_learn(how: str) -> None:
    assert found(CHECK.detect(case(CONV, how, newness=NEW))).subjects == ("conv.weight",)


def test_a_given_head_that_is_left_alone() -> None:
    assert "amid" in found(CHECK.detect(case(HEAD, newness=GIVEN))).summary
    assert isinstance(CHECK.detect(case(CONV | HEAD, newness=GIVEN)), Clear)  # normalisation alone is tuned


def test_a_layer_alone_amid_layers_that_learn() -> None:
    names = ("a.weight", "b.weight", "c.weight", "fc.weight")
    kinds = {
        "tensor_names": names, "is_parameter": np.ones(4, bool), "numel": np.full(4, 100), "requires_grad": np.ones(4, bool),
        "got_gradient": np.ones(4, bool), "layer_kind": ("Conv2d",) * 3 + ("Linear",), "newness": np.array([0, 0, 0, 1]),
    }  # fmt: skip

    def moved(moving: np.ndarray) -> tuple[StateSnapshot, ...]:  # type: ignore[type-arg]
        return tuple(StateSnapshot(0, m, np.ones(4) + i * moving, np.ones(4)) for i, m in enumerate(("start", "pass")))

    moving = np.array([True, False, True, True])
    middle = healthy(models={0: model(**kinds, in_optimizer=moving)}, states=moved(moving))
    assert found(CHECK.detect(middle)).subjects == ("b.weight",)
    # Adapters: what is new learns, wherever it stands; and what is frozen by its flag was meant to be.
    new = {**kinds, "newness": np.where(moving, 1, 0)}
    assert isinstance(CHECK.detect(healthy(models={0: model(**new, in_optimizer=moving)}, states=moved(moving))), Clear)
    named = {**kinds, "requires_grad": moving}
    assert isinstance(CHECK.detect(healthy(models={0: model(**named, in_optimizer=moving)}, states=moved(moving))), Clear)
    unused = {**kinds, "on_path": moving}
    assert isinstance(CHECK.detect(healthy(models={0: model(**unused, in_optimizer=moving)}, states=moved(moving))), Clear)


def test_an_optimizer_of_tensors_that_no_model_has() -> None:
    stuck = CONV | NORM
    finding = found(CHECK.detect(case(stuck & PARAMETER, newness=HEAD_NEW, held_in_vain=3)))
    assert "3 tensors" in finding.summary
    assert isinstance(CHECK.detect(case(stuck & PARAMETER, newness=HEAD_NEW)), Clear)


def test_layers_that_work_in_the_model_and_are_no_part_of_it() -> None:
    few = found(CHECK.detect(healthy(models={0: model(strays=("Conv2d",), stray_numbers=10)})))
    most = found(CHECK.detect(healthy(models={0: model(strays=("Conv2d", "Conv2d", "Linear"), stray_numbers=100_000)})))
    assert "2 Conv2d, 1 Linear" in most.summary
    assert most.severity_points > few.severity_points


def test_the_cost_is_what_a_probe_reaches_beyond() -> None:
    lost = measured(case(HEAD, newness=HEAD_NEW), probe_final=0.95, probe_n=100)
    last = lost.run.closing
    assert last is not None
    reached = last.rescores["val_eval"].accuracy
    assert found(CHECK.detect(lost)).severity_points == pytest.approx(100 * (0.95 - reached))


def test_nothing_moves() -> None:
    assert "no trainable parameter" in found(CHECK.detect(healthy(states=states(0 * EVERY, 7)))).summary


def test_sound_and_frozen_layers_are_silent() -> None:
    assert isinstance(CHECK.detect(healthy()), Clear)
    frozen = healthy(models={0: model(requires_grad=HEAD, in_optimizer=HEAD)}, states=states(HEAD, 7))
    assert isinstance(CHECK.detect(frozen), Clear)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "train")), NotApplicable)
    assert isinstance(CHECK.detect(Case(replace(healthy().run, states=()))), NotApplicable)


def test_an_optimizer_of_tensors_of_no_module_says_nothing_of_this_model() -> None:
    """Weights and bias of a logistic regression as plain tensors, on features that a frozen network made."""
    none = np.zeros(len(TENSORS), bool)
    other = case(EVERY, in_optimizer=none, got_gradient=none)
    assert isinstance(CHECK.detect(other), NotApplicable)
    found(CHECK.detect(case(EVERY, in_optimizer=none)))  # it got gradients: another model's parameters were given by mistake
    found(CHECK.detect(case(EVERY, in_optimizer=none, got_gradient=none, held_in_vain=2)))  # they get none
