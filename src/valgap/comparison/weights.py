"""The weights of two runs: equal, drawn from the same distribution by other random numbers, or other ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from valgap.types import FloatArray, ModelInfo, Nature, RunRecord, StateSnapshot

# Relative differences up to this are rounding.
ROUNDING = 1e-4
# Tensors of n numbers that are drawn anew differ in their norms by so many times 1 / sqrt(2 n), and a thousandth.
DRAWN_AGAIN, LEAST = 6.0, 1e-3
GIVEN = 0  # of ModelInfo.newness
MAX_NAMES = 4


@dataclass(frozen=True)
class WeightsDiffer:
    """How the tensors of two states differ."""

    size: float  # the largest relative difference; infinite for another architecture
    nature: Nature
    text: str
    only_buffers: bool = False


def first_weights(first: RunRecord, second: RunRecord) -> WeightsDiffer | None:
    """How the trained models differ before their first step; None where they are equal, or not known."""
    models = [run.trained_model for run in (first, second)]
    if models[0] is None or models[1] is None:
        return None
    shape = [m.numel[m.is_parameter].tolist() for m in models if m is not None]
    if sorted(shape[0]) != sorted(shape[1]):
        counts = [f"{sum(s):,} parameters in {len(s)} tensors" for s in shape]
        return WeightsDiffer(float("inf"), "substance", f"the models are other ones: {counts[0]}, then {counts[1]}")
    states = [_start(run, m) for run, m in zip((first, second), models, strict=True) if m is not None]
    if states[0] is None or states[1] is None:
        return None
    return state_difference(states[0], states[1], models[0], models[1])


def _start(run: RunRecord, model: ModelInfo) -> StateSnapshot | None:
    own = [s for s in run.states if s.moment == "start" and s.model == model.id]
    return own[-1] if own else None


def state_difference(
    a: StateSnapshot, b: StateSnapshot, model: ModelInfo | None, other: ModelInfo | None = None
) -> WeightsDiffer | None:
    """How two states of one architecture differ; None where no tensor does, or their tensors are others."""
    if len(a.sums) != len(b.sums) or model is None or len(model.numel) != len(a.sums):
        return None
    moved = a.moved(b)
    if not moved.any():
        return None
    sizes = _sizes(a, b)
    names = [model.tensor_names[i] for i in np.flatnonzero(moved)]
    told = ", ".join(names[:MAX_NAMES]) + (f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else "")
    text = f"{int(moved.sum())} of {len(moved)} tensors differ: {told}"
    return WeightsDiffer(
        float(sizes[moved].max()), _nature(a, b, moved, sizes, (model, other)), text, bool(not model.is_parameter[moved].any())
    )


def _sizes(a: StateSnapshot, b: StateSnapshot) -> FloatArray:
    """(T,) relative differences, as far as sums and norms tell them."""
    scale = np.maximum(np.maximum(a.norms, b.norms), 1e-30)
    return np.asarray(np.maximum(np.abs(a.sums - b.sums), np.abs(a.norms - b.norms)) / scale)


def _nature(
    a: StateSnapshot,
    b: StateSnapshot,
    moved: npt.NDArray[np.bool_],
    sizes: FloatArray,
    models: tuple[ModelInfo, ModelInfo | None],
) -> Nature:
    model = models[0]
    # A sum of many numbers that cancel is no measure of rounding: it may differ by the root of their count.
    if (sizes[moved] <= ROUNDING * np.sqrt(model.numel[moved]).clip(1, 100)).all() and _norms_agree(a, b, moved):
        return "rounding"
    given = [m.newness == GIVEN for m in models if m is not None and len(m.newness) == len(moved)]
    if any((g & moved & model.is_parameter).any() for g in given):
        return "substance"
    ratio = np.abs(np.log(np.maximum(a.norms, 1e-30) / np.maximum(b.norms, 1e-30)))
    allowed = DRAWN_AGAIN / np.sqrt(2 * model.numel) + LEAST
    return "chance" if (ratio[moved] <= allowed[moved]).all() else "substance"


def _norms_agree(a: StateSnapshot, b: StateSnapshot, moved: npt.NDArray[np.bool_]) -> bool:
    scale = np.maximum(np.maximum(a.norms, b.norms), 1e-30)
    return bool((np.abs(a.norms - b.norms)[moved] <= ROUNDING * scale[moved]).all())
