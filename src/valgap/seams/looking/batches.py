"""Finding the images, the labels and the logits in what programs pass around. Looks, never copies a batch."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from valgap.seams.looking.content import content_keys
from valgap.seams.looking.mixing import Source

MAX_LOGIT_COLUMNS = 65_536


def tensors_in(value: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors in nested tuples, lists, dicts and output objects, with a path as their key."""
    if isinstance(value, torch.Tensor):
        yield key, value
    elif depth > 3:
        return
    elif isinstance(value, dict) or (hasattr(value, "keys") and hasattr(value, "__getitem__")):
        for name in list(value.keys()):
            yield from tensors_in(value[name], f"{key}.{name}", depth + 1)
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from tensors_in(item, f"{key}.{i}", depth + 1)
    elif hasattr(value, "tensors") and isinstance(value.tensors, torch.Tensor):
        yield key, value.tensors


def find_images(value: Any) -> torch.Tensor | None:
    """The image batch in a model's arguments: the first 4-D tensor, else the first one of 2 or more dimensions."""
    found = [t for _, t in tensors_in(value) if t.ndim >= 2 and t.shape[0] > 0]
    return next((t for t in found if t.ndim >= 4), found[0] if found else None)


def find_logits(output: Any, n: int, key: str | None = None) -> torch.Tensor | None:
    """The class scores (N, C) or (N,) in a model's output; of several heads that under ``key``, else the first."""
    heads = logit_heads(output, n)
    return heads.get(key, next(iter(heads.values()), None)) if key is not None else next(iter(heads.values()), None)


def logit_heads(output: Any, n: int) -> dict[str, torch.Tensor]:
    """All class scores in a model's output by their place in it, the likeliest first."""
    if isinstance(output, torch.Tensor):
        return {"": output} if _is_logits(output, n) else {}
    found = {k: t for k, t in tensors_in(output) if _is_logits(t, n)}
    logits = getattr(output, "logits", None)
    if isinstance(logits, torch.Tensor) and _is_logits(logits, n):
        own = next((k for k, t in found.items() if t is logits), ".logits")
        found = {own: logits, **found}
    return found


def _is_logits(tensor: torch.Tensor, n: int) -> bool:
    if not tensor.is_floating_point() or tensor.ndim not in (1, 2) or tensor.shape[0] != n:
        return False
    return tensor.ndim == 1 or tensor.shape[1] <= MAX_LOGIT_COLUMNS


@dataclass
class LoadedBatch:
    """A batch that a loader handed out and no model call has used yet."""

    walk: Any
    indices: list[int] | None
    size: int
    images: list[tuple[weakref.ref[torch.Tensor], int]] = field(default_factory=list)  # with data pointers
    targets: dict[str, torch.Tensor] = field(default_factory=dict)  # candidates, by their key in the batch
    keys: torch.Tensor | None = None  # (N,) content keys, where no index says which samples these are
    used: bool = False  # whether a model was called on it
    # Of images that no loader gave: the tensor itself, and the larger one that it is rows of, with the first row's number.
    origin: torch.Tensor | None = None
    row: tuple[torch.Tensor, int] | None = None
    source: Source | None = None  # some values of its images, in the first batches of a pass

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether ``tensor`` is (a view of) one of this batch's tensors."""
        pointer = tensor.data_ptr()
        return any(ref() is tensor or (ref() is not None and own == pointer) for ref, own in self.images)

    def shares_memory(self, tensor: torch.Tensor) -> bool:
        """Whether ``tensor`` lies in the memory of one of this batch's tensors."""
        own = tensor.untyped_storage().data_ptr()
        alive = (ref() for ref, _ in self.images)
        return any(t is not None and t.untyped_storage().data_ptr() == own for t in alive)

    def views_of(self, images: torch.Tensor) -> int:
        """How many rows of ``images`` (N * K, C, H, W) are one image of this batch: its crops, loaded as (N, K, C, H, W)."""
        if images.ndim != 4 or not self.size or images.shape[0] <= self.size or images.shape[0] % self.size:
            return 1
        views = images.shape[0] // self.size
        crops = (ref() for ref, _ in self.images)
        return views if any(t is not None and t.shape == (self.size, views, *images.shape[1:]) for t in crops) else 1

    def marks(self) -> list[Any]:
        """What tells its samples from others of the same walk; nothing where that is not known."""
        if self.row is not None:
            return list(range(self.row[1], self.row[1] + self.size))
        if self.indices is not None and len(self.indices) == self.size:
            return list(self.indices)
        return self.keys.tolist() if self.keys is not None else []

    def part(self, tensor: torch.Tensor) -> LoadedBatch | None:
        """The samples of this batch that ``tensor`` is a slice of (a micro-batch); None where it is no slice of it."""
        n = int(tensor.shape[0])
        for ref, own in self.images:
            whole = ref()
            if whole is None or whole.stride() != tensor.stride() or whole.shape[1:] != tensor.shape[1:] or n >= len(whole):
                continue
            first, rest = divmod(tensor.data_ptr() - own, max(1, whole.stride(0)) * whole.element_size())
            if rest or not 0 <= first <= len(whole) - n:
                continue
            rows = slice(first, first + n)
            own_indices = self.indices[rows] if self.indices is not None and len(self.indices) == len(whole) else None
            targets = {k: t[rows] for k, t in self.targets.items()}
            keys = self.keys[rows] if self.keys is not None else None
            return LoadedBatch(self.walk, own_indices, n, [(weakref.ref(tensor), tensor.data_ptr())], targets, keys)
        return None


def read_batch(walk: Any, indices: Any, batch: Any) -> LoadedBatch:
    """A LoadedBatch of whatever a DataLoader returned."""
    found = list(tensors_in(batch))
    images = [t for _, t in found if t.ndim >= 2]
    largest = max(images, key=lambda t: t.numel(), default=None)
    size = int(largest.shape[0]) if largest is not None else 0
    loaded = LoadedBatch(walk, _as_indices(indices), size)
    for key, tensor in found:
        if tensor.ndim >= 2 and tensor.numel():
            loaded.images.append((weakref.ref(tensor), tensor.data_ptr()))
        if tensor is not largest and _is_target(tensor, size):
            loaded.targets[key] = tensor
    if largest is not None and (loaded.indices is None or len(loaded.indices) != size):
        loaded.keys = content_keys(largest)
    return loaded


def _is_target(tensor: torch.Tensor, size: int) -> bool:
    if tensor.ndim == 0 or tensor.shape[0] != size:
        return False
    if tensor.ndim == 1:
        return not tensor.is_floating_point() or size > 0
    return tensor.ndim == 2 and tensor.shape[1] <= 20_000


def _as_indices(indices: Any) -> list[int] | None:
    if isinstance(indices, int):
        return [indices]
    try:
        return [int(i) for i in indices]
    except (TypeError, ValueError):
        return None


def as_class_index(target: torch.Tensor, n: int) -> torch.Tensor | None:
    """(N,) int64 class indices of index, one-hot or soft targets, on their device; None if they are none."""
    if target.shape[:1] != (n,):
        return None
    if target.ndim == 2 and target.shape[1] == 1:
        target = target[:, 0]
    if target.ndim == 2:
        return target.argmax(dim=1)
    if target.ndim != 1:
        return None
    return target.round().long() if target.is_floating_point() else target.long()


def of_each_image(logits: torch.Tensor | None, views: int) -> torch.Tensor | None:
    """(N, C) or (N,) the mean over the views of each image, whose rows stand together, of scores (N * views, ...)."""
    if logits is None or views == 1:
        return logits
    return logits.reshape(-1, views, *logits.shape[1:]).mean(1)


def as_two_columns(logits: torch.Tensor, probabilities: bool) -> torch.Tensor:
    """(N, C) scores with C >= 2: a single output z becomes the two classes [0, z]."""
    if logits.ndim == 1:
        logits = logits[:, None]
    logits = logits.detach().float()
    if probabilities:
        logits = torch.logit(logits.clamp(1e-7, 1 - 1e-7)) if logits.shape[1] == 1 else logits
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
    return logits


def exchanged(value: Any, old: torch.Tensor, new: torch.Tensor) -> Any:
    """The nested arguments with one tensor exchanged."""
    if value is old:
        return new
    if isinstance(value, tuple):
        parts = [exchanged(v, old, new) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, list):
        return [exchanged(v, old, new) for v in value]
    if isinstance(value, Mapping):
        return {k: exchanged(v, old, new) for k, v in value.items()}
    return value
