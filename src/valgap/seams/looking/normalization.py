"""The normalisation that a loader's transform applies, and images taken from one normalisation to another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from valgap.seams.looking import datasets as ds

Norm = tuple[tuple[float, ...], tuple[float, ...]]


def normalization(loader: Any) -> Norm | None:
    """(mean, std) that a loader's transform applies, all Normalize steps taken together; None without transform."""
    found = ds.transform_of(loader.dataset)
    if found is None:
        return None
    mean, std = np.zeros(3), np.ones(3)
    for step in found.steps:
        if step.mean is not None and step.std is not None and "normal" in step.name.lower():
            m, s = np.array(step.mean), np.array(step.std)
            if m.shape not in ((3,), (1,)) or s.shape != m.shape:
                return None
            mean, std = mean + m * std, std * s
    return tuple(mean.tolist()), tuple(std.tolist())


def differs(a: Norm, b: Norm) -> bool:
    return not (np.allclose(a[0], b[0], atol=0.02) and np.allclose(a[1], b[1], atol=0.02))


def renormalize(old: Norm, new: Norm) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(images: torch.Tensor) -> torch.Tensor:
        def shaped(values: tuple[float, ...]) -> torch.Tensor:
            return torch.tensor(values, dtype=images.dtype, device=images.device).view(1, -1, 1, 1)

        return (images * shaped(old[1]) + shaped(old[0]) - shaped(new[0])) / shaped(new[1])

    return change
