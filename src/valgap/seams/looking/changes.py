"""Other transforms for a data set that a program made; the program's own object stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from valgap.seams.looking import datasets as ds


def replace_transform(dataset: Any, transform: Any) -> Any | None:
    """A shallow copy of the data set (and of what it wraps) with another image transform; None if it has none."""
    import copy

    clone = copy.copy(dataset)
    for name in ds.TRANSFORM_NAMES:
        if callable(getattr(clone, name, None)) and name in getattr(clone, "__dict__", {}):
            if name == "transforms" and hasattr(clone.transforms, "transform"):
                continue
            setattr(clone, name, transform)
            paired = getattr(clone, "transforms", None)
            if paired is not None and hasattr(paired, "transform"):
                clone.transforms = copy.copy(paired)
                clone.transforms.transform = transform
            return clone
    parts = getattr(clone, "datasets", None)
    if isinstance(parts, (list, tuple)):
        replaced = [replace_transform(p, transform) for p in parts]
        if any(p is None for p in replaced):
            return None
        clone.datasets = replaced
        return clone
    for name in ("dataset", "ds", "base", "subset", "base_dataset", "_dataset"):
        if name in getattr(clone, "__dict__", {}):
            inner = replace_transform(getattr(clone, name), transform)
            if inner is not None:
                setattr(clone, name, inner)
                return clone
    return None


def without_randomness(transform: Any) -> Any | None:
    """The transform with its random steps taken out, a random crop becoming a centre crop; None if it cannot."""
    import copy

    from torchvision import transforms

    parts = getattr(transform, "transforms", None)
    alone = not isinstance(parts, (list, tuple))
    if alone and not ds.is_random(transform):
        return None
    kept: list[Any] = []
    for step in parts if isinstance(parts, (list, tuple)) else [transform]:
        name = type(step).__name__
        if name in ("RandomResizedCrop", "RandomCrop"):
            height, width = step.size if isinstance(step.size, (tuple, list)) else (step.size, step.size)
            if name == "RandomResizedCrop":
                kept.append(transforms.Resize(int(min(height, width) * 256 / 224)))
            kept.append(transforms.CenterCrop((height, width)))
        elif not ds.is_random(step):
            kept.append(step)
    if alone:
        return transforms.Compose(kept)
    fixed = copy.copy(transform)
    fixed.transforms = kept
    return fixed


def transform_for(size: Sequence[int], crop_share: float, interpolation: str, mean: Sequence[float], std: Sequence[float]) -> Any:
    """Resize, centre crop and normalise: a PIL image to (C, H, W), as published weights of this ``size`` want it."""
    from torchvision import transforms

    mode = transforms.InterpolationMode(interpolation)
    height, width = int(size[-2]), int(size[-1])
    return transforms.Compose(
        [
            transforms.Resize(round(min(height, width) / crop_share), mode),
            transforms.CenterCrop((height, width)),
            transforms.ToTensor(),
            transforms.Normalize(tuple(mean), tuple(std)),
        ]
    )
