"""What a data set says of itself: its samples' identity, class map, targets and transforms. Loads no image."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from valgap.types import IntArray, TransformStep

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".jfif")
MAX_TRANSFORM_TEXT = 4_000
MAX_DEPTH = 12
# Reading a column of paths touches every item, so larger data sets keep their indices as names.
MAX_NAMED_SAMPLES = 2_000_000


@dataclass(frozen=True)
class Leaf:
    """One innermost data set with the positions of the outer one that lead into it."""

    dataset: Any
    position: IntArray  # (n,) positions in the outermost data set
    index: IntArray  # (n,) index within ``dataset`` of each of them


def held(owner: Any, name: str) -> Any:
    """The attribute, None where there is none; asking a stranger's object may run its code, and that may fail."""
    try:
        return getattr(owner, name, None)
    except Exception:
        return None


def leaves(dataset: Any) -> list[Leaf]:
    """The innermost data sets below Subset, ConcatDataset and wrappers; together they cover every position."""
    everything = np.arange(max(0, safe_len(dataset)), dtype=np.int64)
    return _leaves(Leaf(dataset, everything, everything), 0)


def _leaves(leaf: Leaf, depth: int) -> list[Leaf]:
    dataset = leaf.dataset
    if depth >= MAX_DEPTH:
        return [leaf]
    size = safe_len(dataset)
    indices: Any = held(dataset, "indices")
    inner = held(dataset, "dataset")
    if inner is not None and _is_sequence(indices) and len(indices) == size:
        return _leaves(Leaf(inner, leaf.position, np.asarray(indices, dtype=np.int64)[leaf.index]), depth + 1)
    parts = held(dataset, "datasets")
    ends = held(dataset, "cumulative_sizes")
    if parts is not None and ends is not None:
        found: list[Leaf] = []
        for part, start, end in zip(parts, [0, *ends], ends, strict=False):
            here = (leaf.index >= start) & (leaf.index < end)
            found += _leaves(Leaf(part, leaf.position[here], leaf.index[here] - start), depth + 1)
        return found
    wrapped = _wrapped(dataset)
    if wrapped is not None and safe_len(wrapped) == size > 0:
        return _leaves(Leaf(wrapped, leaf.position, leaf.index), depth + 1)
    return [leaf]


def _wrapped(dataset: Any) -> Any | None:
    """The data set that this one wraps one to one or chooses from, by the attribute that holds it."""
    for name in ("dataset", "ds", "base", "subset", "base_dataset", "_dataset"):
        inner = held(dataset, name)
        if inner is None or inner is dataset or isinstance(inner, (dict, list, tuple, str, np.ndarray)):
            continue
        if hasattr(inner, "__getitem__") and hasattr(inner, "__len__"):
            return inner
    return None


def chain(dataset: Any) -> Iterator[Any]:
    """The data set, then what it wraps, outermost first (the first part of a concatenation)."""
    for _ in range(MAX_DEPTH):
        yield dataset
        parts = held(dataset, "datasets")
        inner = parts[0] if isinstance(parts, (list, tuple)) and parts else _wrapped(dataset)
        if inner is None:
            return
        dataset = inner


def safe_len(dataset: Any) -> int:
    """len(dataset), or -1 where it has none."""
    try:
        return len(dataset)
    except Exception:
        return -1


def length_of(loader: Any) -> int:
    """Batches of a loader, -1 where it does not say.

    torch's own loader is not asked where it reads a stream: it takes note of being asked, and warns the program later.
    """
    stream = held(loader, "dataset")
    if not (isinstance(loader, DataLoader) and isinstance(stream, IterableDataset)):
        return safe_len(loader)
    size, batch = safe_len(stream), loader.batch_size
    if size < 0 or batch is None:
        return size
    return size // batch if loader.drop_last else -(-size // batch)


def _is_sequence(value: Any) -> bool:
    return (
        value is not None and hasattr(value, "__len__") and hasattr(value, "__getitem__") and not isinstance(value, (str, dict))
    )


def paths_of(dataset: Any) -> list[str] | None:
    """The image path of each index of an innermost data set, where it keeps them; None otherwise."""
    size = safe_len(dataset)
    if not 0 < size <= MAX_NAMED_SAMPLES:
        return None
    for holder in _holders(dataset):
        fields = _fields(holder)
        preferred = [fields[k] for k in ("samples", "imgs", "_image_files", "image_paths", "paths", "files") if k in fields]
        for column in [*preferred, *fields.values()]:
            for candidate in _columns(column, size):
                paths = _as_paths(candidate, size)
                if paths is not None:
                    return paths
    return None


def columns(dataset: Any) -> Iterator[Any]:
    """Everything that an innermost data set, or an object that it holds, keeps one of for each sample."""
    size = safe_len(dataset)
    for holder in _holders(dataset):
        for value in _fields(holder).values():
            yield from _columns(value, size)


def _holders(dataset: Any) -> list[Any]:
    """The data set, then the objects that it holds and that may keep its samples for it: readers, tables, indices."""
    held = []
    for name, value in _fields(dataset).items():
        plain = isinstance(value, (str, bytes, int, float, dict, list, tuple, set, type, np.ndarray, torch.Tensor, nn.Module))
        if name not in TRANSFORM_NAMES and not plain and not _is_function(value) and hasattr(value, "__dict__"):
            held.append(value)
    return [dataset, *held]


def _fields(dataset: Any) -> dict[str, Any]:
    try:
        return dict(vars(dataset))
    except TypeError:
        return {}


def _columns(value: Any, size: int) -> Iterator[Any]:
    """The columns of ``value`` with one entry per sample: itself, a table's columns, or a tuple's places."""
    if type(value).__module__.startswith("pandas") and hasattr(value, "columns") and len(value) == size:
        for name in value.columns:
            yield value[name].tolist()
        return
    if not isinstance(value, (list, tuple, np.ndarray)) or len(value) != size:
        return
    first = value[0]
    if isinstance(first, (tuple, list)):
        for place in range(min(len(first), 4)):
            if isinstance(first[place], (str, os.PathLike)):
                yield [row[place] for row in value]
    elif isinstance(first, dict):
        for key, item in first.items():
            if isinstance(item, (str, os.PathLike)):
                yield [row.get(key) for row in value]
    else:
        yield value


def _as_paths(column: Any, size: int) -> list[str] | None:
    if not isinstance(column, (list, tuple, np.ndarray)) or len(column) != size:
        return None
    if not isinstance(column[0], (str, os.PathLike)) or not str(column[0]).lower().endswith(IMAGE_SUFFIXES):
        return None
    return [os.fspath(item) if isinstance(item, (str, os.PathLike)) else str(item) for item in column]


def targets_of(dataset: Any) -> IntArray | None:
    """(N,) declared integer targets of an innermost data set, read without loading images; None if unknown."""
    size = safe_len(dataset)
    if size <= 0 or size > MAX_NAMED_SAMPLES:
        return None
    for name in ("targets", "labels", "_labels", "samples", "imgs", "y"):
        value = next((f[name] for f in map(_fields, _holders(dataset)) if f.get(name) is not None), None)
        if value is None:
            continue
        try:
            if name in ("samples", "imgs"):
                value = [row[1] for row in value]
            array = np.asarray(value)
        except Exception:
            continue
        if array.shape == (size,) and array.dtype.kind in "iu":
            return array.astype(np.int32)
    return None


def class_map_of(dataset: Any) -> dict[str, int] | None:
    """Class name to index, from ``class_to_idx`` or ``classes`` of the data set or what it wraps."""
    for part in (holder for link in chain(dataset) for holder in _holders(link)):
        mapping = held(part, "class_to_idx")
        if isinstance(mapping, dict) and mapping:
            try:
                return {str(k): operator.index(v) for k, v in mapping.items()}
            except TypeError:
                pass
        classes = held(part, "classes")
        if isinstance(classes, (list, tuple)) and classes and all(isinstance(c, str) for c in classes):
            return {name: i for i, name in enumerate(classes)}
        features = held(part, "features")
        feature = features.get("label") if isinstance(features, dict) else None
        names = held(feature, "names")
        if isinstance(names, list) and names:
            return {str(name): i for i, name in enumerate(names)}
    return None


def root_of(dataset: Any) -> str | None:
    """The folder the data set says that it reads."""
    for part in (holder for link in chain(dataset) for holder in _holders(link)):
        root = held(part, "root")
        if isinstance(root, (str, Path)):
            return os.fspath(root)
    return None


# -- transforms -------------------------------------------------------------------------------

TRANSFORM_NAMES = ("transform", "transforms", "tfms", "tf", "augment", "preprocess", "_transform", "_transforms")
RANDOM_NAMES = (
    "random",
    "jitter",
    "autoaugment",
    "randaugment",
    "trivialaugment",
    "augmix",
    "mixup",
    "cutmix",
    "erasing",
    "elastic",
)


@dataclass
class FoundTransform:
    """Where the image transform of a data set sits: ``setattr(owner, name, other)`` replaces it."""

    owner: Any
    name: str
    transform: Any
    steps: tuple[TransformStep, ...] = field(default=())


def transform_of(dataset: Any) -> FoundTransform | None:
    """The image transform of the data set, outermost first; None if there is none."""
    for part in chain(dataset):
        for name in TRANSFORM_NAMES:
            value = held(part, name)
            if name == "transforms" and hasattr(value, "transform") and held(part, "transform") is not None:
                continue  # torchvision's StandardTransform stands for `transform`
            if callable(value) and not isinstance(value, type):
                return FoundTransform(part, name, value, tuple(_steps(value, 0)))
    return None


def _steps(transform: Any, depth: int) -> Iterator[TransformStep]:
    parts = held(transform, "transforms")
    name = type(transform).__name__
    if isinstance(parts, (list, tuple)) and depth < MAX_DEPTH:
        chance = "Random" in name  # RandomApply, RandomChoice, RandomOrder
        for part in parts:
            for step in _steps(part, depth + 1):
                yield step if not chance else TransformStep(step.name, step.text, True, step.mean, step.std)
        return
    yield TransformStep(
        name=name if not _is_function(transform) else str(getattr(transform, "__qualname__", name)),
        text=_text(transform)[:300],
        random=is_random(transform),
        mean=_numbers(held(transform, "mean")),
        std=_numbers(held(transform, "std")),
    )


def is_random(transform: Any) -> bool:
    """Whether the step, by its class, draws random numbers (probability above 0)."""
    name = type(transform).__name__.lower()
    if not any(word in name for word in RANDOM_NAMES):
        return False
    return getattr(transform, "p", 1.0) != 0


def _is_function(value: Any) -> bool:
    return hasattr(value, "__code__") or hasattr(value, "__func__")


def _text(value: Any) -> str:
    if _is_function(value):
        return f"function {getattr(value, '__qualname__', '?')}"
    try:
        return repr(value)
    except Exception:
        return type(value).__name__


def transform_text(found: FoundTransform | None) -> str:
    """The transform as text, bounded."""
    return "" if found is None else _text(found.transform)[:MAX_TRANSFORM_TEXT]


def _numbers(value: Any) -> tuple[float, ...] | None:
    if value is None or callable(value):
        return None
    try:
        array = np.asarray(value, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        return None
    return tuple(float(v) for v in array) if 0 < array.size <= 16 else None
