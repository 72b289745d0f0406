"""Whether a layer still has the weights that it was made with: they follow the formula of an initialiser to the letter."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

# Below this many numbers chance alone makes trained weights look like drawn ones, or drawn ones like trained ones.
MIN_UNIFORM, MIN_NORMAL = 128, 4_096
# A variance in a sample of n differs from the true one by about sqrt(2 / n) of it.
SPREADS = 4.0


def looks_new(layer: nn.Module) -> bool | None:
    """True for a layer as it was made, False for one with other weights, None where that cannot be told."""
    # Its own parameters alone: a parametrised layer computes its weight anew when it is asked, and may learn by that.
    weight, bias = layer._parameters.get("weight"), layer._parameters.get("bias")
    if not isinstance(weight, torch.Tensor) or not weight.is_floating_point():
        return None
    return _as_made(weight.detach().float(), bias)


def _as_made(weight: torch.Tensor, bias: torch.Tensor | None) -> bool | None:
    if weight.ndim == 1:
        shift = bias is None or not bool(bias.detach().any())
        return shift and bool(((weight == 1).all()) | (weight == 0).all())
    # Each passes over the weights once and makes no copy of them: of a large model's, copies take longer than a batch.
    low, high = (float(weight.min()), float(weight.max())) if weight.numel() else (0.0, 0.0)
    if low == high == 0:
        return True
    wide = weight.numel() // weight.shape[0]
    narrow = weight.shape[0] * weight[0, 0].numel()
    n = weight.numel()
    variance, most = float(torch.linalg.vector_norm(weight)) ** 2 / n, max(-low, high)
    uniform = [1 / (3 * wide), 1 / (3 * narrow), 2 / wide, 2 / narrow, 2 / (wide + narrow), 1 / wide]
    for wanted in uniform:
        end = math.sqrt(3 * wanted)
        if n >= MIN_UNIFORM and end * (1 - 20 / n) <= most <= end * (1 + 1e-4) and _near(variance, wanted, n, 0.8):
            return True
    normal = [2 / wide, 2 / narrow, 2 / (wide + narrow), 1 / wide, 0.02**2, 0.01**2]
    if n >= MIN_NORMAL and any(_near(variance, wanted, n, 2.0) for wanted in normal) and most < 8 * math.sqrt(variance):
        return True
    return False if n >= MIN_NORMAL else None


def _near(variance: float, wanted: float, n: int, kurtosis: float) -> bool:
    return abs(variance / wanted - 1) <= SPREADS * math.sqrt(kurtosis / n)


def newness(tensors: list[tuple[str, torch.Tensor, bool, str]], layers: list[Any], loaded: set[int]) -> dict[int, int]:
    """1 for a tensor as it was made, 0 for one that was given other weights, -1 unknown; by id()."""
    found: dict[int, int] = {}
    for layer in layers:
        own = list(layer.parameters(recurse=False))
        if not own:
            continue
        new = looks_new(layer)
        for tensor in own:
            found[id(tensor)] = -1 if new is None else int(new)
    weights = [t for _, t, is_parameter, _ in tensors if is_parameter]
    if 2 * sum(id(t) in loaded for t in weights) >= len(weights):
        for tensor in weights:
            if id(tensor) not in loaded:
                found[id(tensor)] = 1  # no file gave it a value, beside much that one did
            elif found.get(id(tensor), -1) < 0:
                found[id(tensor)] = 0
    return found
