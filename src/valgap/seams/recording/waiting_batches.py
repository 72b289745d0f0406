"""The batches that loaders handed out and no model call has used yet."""

from __future__ import annotations

import functools
import weakref

import torch

from valgap.seams.looking.batches import LoadedBatch
from valgap.seams.recording.walk import Walk

MAX_WAITING = 64


class WaitingBatches:
    """They wait in the order in which they were loaded; beyond ``MAX_WAITING`` the oldest are forgotten."""

    def __init__(self) -> None:
        self._waiting: list[LoadedBatch] = []
        self._sliced: LoadedBatch | None = None  # the one whose micro-batches are being used
        # Every batch whose tensors still live, by the identity of these: a program may keep batches and use them again.
        self._alive: dict[int, tuple[weakref.ref[torch.Tensor], LoadedBatch]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, batch: LoadedBatch) -> None:
        """A loader handed out this batch."""
        self._waiting.append(batch)
        del self._waiting[:-MAX_WAITING]
        for ref, _ in batch.images:
            tensor = ref()
            if tensor is not None:
                key = id(tensor)
                self._alive[key] = (weakref.ref(tensor, functools.partial(self._died, key)), batch)

    def _died(self, key: int, reference: weakref.ref[torch.Tensor]) -> None:
        kept = self._alive.get(key)
        if kept is not None and kept[0] is reference:
            del self._alive[key]

    def forget(self, walk: Walk) -> None:
        """No batch of this walk waits any more."""
        self._waiting = [b for b in self._waiting if b.walk is not walk]

    def move(self, walk: Walk, other: Walk) -> None:
        """Batches that were drawn for one walk belong to another."""
        for batch in self._waiting:
            if batch.walk is walk:
                batch.walk = other
                walk.drawn, other.drawn = walk.drawn - 1, other.drawn + 1

    def any_of(self, walk: Walk) -> bool:
        """Whether a batch of this walk still waits."""
        return any(b.walk is walk for b in self._waiting)

    def has(self, tensor: torch.Tensor) -> bool:
        """Whether a waiting batch holds this tensor, a slice of it, or one of its shape: then it is no module's output."""
        waiting = [b for b in (*self._waiting, self._sliced) if b is not None]
        if any(b.holds(tensor) or b.part(tensor) is not None for b in waiting):
            return True
        alive = (ref() for b in self._waiting for ref, _ in b.images)
        return any(t is not None and t.shape == tensor.shape for t in alive)

    def match(self, images: torch.Tensor, in_use: LoadedBatch | None) -> LoadedBatch | None:
        """The batch that these images are: by identity, else the oldest of the loader that is in use.

        None where it is the one ``in_use`` once more, and where no batch fits. A batch that is returned waits no longer.
        """
        chosen = next((b for b in self._waiting if b.size == images.shape[0] and b.holds(images)), None)
        if chosen is not None:
            self._use(chosen)
            self._sliced = None
            return chosen
        if in_use is not None and in_use.holds(images):
            return None
        chosen = next((b for b in (*self._waiting, self._sliced) if b is not None and b.part(images) is not None), None)
        if chosen is not None:
            self._use(chosen)
            self._sliced = chosen  # its other micro-batches are still to come
            return chosen.part(images)
        kept = self._alive.get(id(images))
        if kept is not None and kept[0]() is images:
            return kept[1] if kept[1] is not in_use else None
        chosen = self._fitting(images)
        if chosen is not None:
            self._use(chosen)
            self._sliced = None
        return chosen

    def _fitting(self, images: torch.Tensor) -> LoadedBatch | None:
        """The oldest batch with the size of these images, of the loader that gave the newest such batch."""
        fitting = [b for b in self._waiting if b.size and images.shape[0] == b.size]
        if not fitting:
            fitting = [b for b in self._waiting if b.size and images.shape[0] % b.size == 0 and images.ndim >= 4]
        return next((b for b in fitting if b.walk is fitting[-1].walk), None)

    def _use(self, chosen: LoadedBatch) -> None:
        """Take a batch out of those that wait, with what the same loader gave before: that was drawn and not used."""
        place = next((i for i, b in enumerate(self._waiting) if b is chosen), -1)
        self._waiting = [b for i, b in enumerate(self._waiting) if i > place or b.walk is not chosen.walk]
