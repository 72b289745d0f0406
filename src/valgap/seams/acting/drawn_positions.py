"""Which positions of a data set the images come from that a model is called with, where an act goes by them."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch

from valgap.seams.looking.batches import LoadedBatch, read_batch
from valgap.seams.recording.waiting_batches import WaitingBatches


class DrawnPositions:
    """Batches as loaders hand them out, until a model is called on them."""

    def __init__(self) -> None:
        self._waiting = WaitingBatches()
        self._used: LoadedBatch | None = None  # the one that a model was called on last
        self._images: weakref.ref[torch.Tensor] | None = None  # what it was called with

    def handed_out(self, iterator: Any, dataset: int, positions: list[int], batch: Any) -> None:
        """An iterator returns a batch of these positions."""
        walk = iterator.__dict__.setdefault("_valgap_walk", _Walk(dataset))
        self._waiting.add(read_batch(walk, positions, batch))

    def of(self, images: torch.Tensor) -> tuple[int, list[int]] | None:
        """(data set, position of each row) of the images that a model is called with; None where that is not known."""
        same = self._images is not None and self._images() is images
        found = self._used if same else self._waiting.match(images, self._used)
        if found is None and self._used is not None and self._used.holds(images):
            found = self._used
        self._images = weakref.ref(images)
        self._used = found
        if found is None or found.indices is None:
            return None
        views = found.views_of(images)
        if len(found.indices) * views != len(images):
            return None
        return found.walk.dataset, [i for i in found.indices for _ in range(views)]


@dataclass(frozen=True, eq=False)
class _Walk:
    """One walk over a loader of this data set."""

    dataset: int


def next_positions(iterator: Any) -> list[int] | None:
    """Which positions of the data set the batch is made of that an iterator is about to return; None where not known."""
    queue = iterator.__dict__.get("_valgap_indices")  # the recorder's, which takes the batch's entry when it is out
    if not queue or not getattr(iterator, "_in_order", True):
        return None
    try:
        return [int(i) for i in queue[0]]
    except (TypeError, ValueError):
        return [int(queue[0])] if isinstance(queue[0], int) else None
