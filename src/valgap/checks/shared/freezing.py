"""What of a model stays as it was during training, by which means, and whether that follows a plan. No check; several use it.

A layer can be held in many ways: `requires_grad = False`, left out of the optimizer, a rate of 0, `no_grad` or `detach` in
`forward`, gradients set to zero. None of them is a fault as such. What is held on purpose follows the network's build:
everything up to a point, all layers of one kind, all weights that were given while all new ones learn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from valgap.types import ModelInfo, RunRecord, StateSnapshot

Mask = npt.NDArray[np.bool_]
# A few parameters are unused in many sound models (an auxiliary classifier, a position table): below this share of all
# numbers, and when the head learns, nothing is claimed.
UNUSED_SHARE = 0.05


@dataclass(frozen=True)
class Holding:
    """Which parameters of a model never moved; masks have shape (T,)."""

    model: ModelInfo
    weights: Mask  # the parameters that work when the model is called
    moved: Mask
    plan: str | None  # how what is held follows the network's build, in words; None where it does not

    @property
    def held(self) -> Mask:
        """Parameters at work that never moved."""
        return np.asarray(self.weights & ~self.moved)

    @property
    def head(self) -> Mask:
        """The parameters of the last layer."""
        return last_layer(self.model, self.weights)

    @property
    def new(self) -> Mask:
        """Held as they were made: nothing was ever learnt there."""
        return np.asarray(self.held & (newness(self.model) == 1))

    def how(self, which: Mask) -> str:
        """By what means most numbers of these are held."""
        model = self.model
        rate = model.highest_rate if len(model.highest_rate) == len(which) else np.full(len(which), np.nan)
        means = {
            "requires_grad is off": which & ~model.requires_grad,
            "in no optimizer": which & model.requires_grad & ~model.in_optimizer,
            "at a learning rate of 0": which & model.requires_grad & model.in_optimizer & (rate == 0),
            "no gradient reaches them": which & model.requires_grad & model.in_optimizer & ~(rate == 0) & ~model.got_gradient,
        }
        most = max(means, key=lambda name: float(model.numel[means[name]].sum()))
        return most if means[most].any() else "their updates are nothing"


def holding(run: RunRecord) -> Holding | None:
    """What the trained model's training left alone; None without a state at the start and a later one."""
    model = run.trained_model
    if model is None:
        return None
    states = [s for s in run.states if s.model == model.id and len(s.norms) == len(model.tensor_names)]
    if len(states) < 2:
        return None
    first = next((s for s in reversed(states) if s.moment == "start"), states[0])
    weights = model.is_parameter & (model.on_path if len(model.on_path) == len(model.is_parameter) else True)
    return holding_between(model, first, states[-1], np.asarray(weights))


def holding_between(model: ModelInfo, first: StateSnapshot, last: StateSnapshot, weights: Mask) -> Holding:
    """What did not move between two states, among these parameters."""
    moved = first.moved(last)
    return Holding(model, weights, moved, _plan(model, weights, moved))


def share(model: ModelInfo, part: Mask, whole: Mask) -> float:
    """Numbers in ``part`` over numbers in ``whole``, 0..1."""
    return float(model.numel[part].sum() / max(1, model.numel[whole].sum()))


def last_layer(model: ModelInfo, weights: Mask | None = None) -> Mask:
    """The parameters of the last module that has any, shape (T,)."""
    among = model.is_parameter if weights is None else weights
    owners = np.array([n.rpartition(".")[0] for n in model.tensor_names])
    places = np.flatnonzero(among)
    return np.asarray((owners == owners[places[-1]]) & among) if len(places) else among


def newness(model: ModelInfo) -> npt.NDArray[np.int_]:
    """(T,) 1 for weights as they were made, 0 for given ones, -1 unknown."""
    told = model.newness if len(model.newness) == len(model.tensor_names) else np.full(len(model.tensor_names), -1)
    return np.asarray(told, np.int_)


def forgotten(model: ModelInfo) -> Mask:
    """(T,) parameters that were frozen first and are to learn now, and that no optimizer holds."""
    if len(model.released) != len(model.tensor_names):
        return np.zeros(len(model.tensor_names), bool)
    return np.asarray(model.released & model.requires_grad & ~model.in_optimizer)


def norms(model: ModelInfo) -> Mask:
    """Which tensors belong to normalisation layers, shape (T,)."""
    return np.array(["norm" in kind.lower() for kind in model.layer_kind], bool)


def _plan(model: ModelInfo, weights: Mask, moved: Mask) -> str | None:
    """The plan that explains everything held; None where there is none, or nothing is held."""
    held, learns = weights & ~moved, weights & moved
    if not held.any() or not learns.any():
        return None
    norm, told = norms(model), newness(model)
    body = ~norm & ~_biases(model)  # a bias before BatchNorm gets next to no gradient in sound training
    still, going = np.flatnonzero(held & body), np.flatnonzero(learns & body)
    if not len(still):
        return "all normalisation layers and biases" if (held & norm).any() else "biases"
    if not len(going):
        return "everything but normalisation layers and biases"
    if still[-1] < going[0]:
        return f"everything before {model.tensor_names[going[0]].rpartition('.')[0]}"
    learning = told[learns & body]
    if not (told[held & body] == 1).any() and not (learning == 0).any() and (learning == 1).any():
        return "all weights that were given, while the new ones learn"
    return None


def _biases(model: ModelInfo) -> Mask:
    return np.array([n.rpartition(".")[2] == "bias" for n in model.tensor_names], bool)


def frozen_share(model: ModelInfo) -> float:
    """Share of the parameters (by count of numbers) that do not require a gradient, 0..1."""
    size = model.numel[model.is_parameter]
    frozen = ~model.requires_grad[model.is_parameter]
    return float(size[frozen].sum() / max(1, size.sum()))
