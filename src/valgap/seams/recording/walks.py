"""Which pass a batch belongs to, where no loader says that a pass is over.

Loaders that never end, batches that are kept and used again, and images that come from no loader at all: a pass then ends
where its samples begin to repeat, where the length that the loader states is reached, or where the program turns from
training to evaluating or back.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import torch

from valgap.seams.looking.batches import LoadedBatch
from valgap.seams.looking.content import are_akin, content_keys
from valgap.seams.looking.described import drawn_order
from valgap.seams.looking.samples import Samples
from valgap.seams.looking.taken_rows import Rows, TakenRows
from valgap.seams.recording.open_batch import OpenBatch
from valgap.seams.recording.waiting_batches import WaitingBatches
from valgap.seams.recording.walk import REPEATED_SHARE, Walk

# In a loop over a loader, a slice is data of its own, and no part of what the program makes of a batch, where it is one of more
# than so many of its size, or where what it is cut from was there before.
SLICES = 4
MOST_LEARNED = 500_000


class Walks:
    """Gives batches their walks."""

    def __init__(self, samples: Samples, waiting: WaitingBatches) -> None:
        self.samples = samples
        self.waiting = waiting
        self._taken = TakenRows()
        self.pictures_seen = False  # whether any model was called on images that have rows and columns
        self._of_iterator: weakref.WeakKeyDictionary[Any, Walk] = weakref.WeakKeyDictionary()
        self._replays: dict[int, Walk] = {}  # by loader
        self._learned: set[int] = set()  # contents of images from no loader that a training was given
        self._last: tuple[Walk, bool] | None = None  # whose batch was used last, and whether gradients were recorded

    # -- loaders ------------------------------------------------------------------------------

    def begin(self, iterator: Any, loader: Any, loader_id: int, dataset_id: int) -> Walk:
        """The walk that an iterator begins; what it had drawn for another one is forgotten."""
        old = self._of_iterator.get(iterator)
        if old is not None:
            self.waiting.forget(old)
        walk = Walk(loader, loader_id, dataset_id, self.samples.ids.get(dataset_id), self.samples.ids_of_keys)
        walk.order = drawn_order(loader)
        self._of_iterator[iterator] = walk
        return walk

    def of(self, iterator: Any) -> Walk | None:
        """The walk that the iterator is on."""
        return self._of_iterator.get(iterator)

    def drawn(self, iterator: Any) -> Walk | None:
        """The walk of a batch that the iterator returns now: another one where the last has reached its length."""
        walk = self._of_iterator.get(iterator)
        if walk is None:
            return None
        if walk.drawn >= walk.length > 0 and walk.length_is_sure:
            walk = self._go_on(walk)
        walk.drawn += 1
        return walk

    def _go_on(self, walk: Walk) -> Walk:
        walk.exhausted = True
        other = walk.another()
        for iterator, own in list(self._of_iterator.items()):
            if own is walk:
                self._of_iterator[iterator] = other
        return other

    # -- batches that are used ----------------------------------------------------------------

    def place(self, loaded: LoadedBatch, grad_enabled: bool) -> LoadedBatch:
        """The batch, in the walk that it belongs to now that a model uses it."""
        placed = self._place(loaded, grad_enabled)
        self._last = placed.walk, grad_enabled
        return placed

    def _place(self, loaded: LoadedBatch, grad_enabled: bool) -> LoadedBatch:
        walk = loaded.walk
        if loaded.used:
            return self._again(loaded)
        loaded.used = True
        if walk.endless and walk.num_batches:
            turned = self._last is not None and self._last[0] is not walk and self._last[1] != grad_enabled
            anew = not grad_enabled and walk.has_met(loaded.marks())
            if turned or anew:
                other = self._go_on(walk)
                self.waiting.move(walk, other)
                other.drawn, walk.drawn = other.drawn + 1, walk.drawn - 1
                loaded.walk = other
        if loaded.walk.endless:
            loaded.walk.meet(loaded.marks())
        return loaded

    def _again(self, loaded: LoadedBatch) -> LoadedBatch:
        """A batch that was kept and is used once more: part of a walk over the kept ones."""
        first: Walk = loaded.walk
        walk = self._replays.get(first.loader_id)
        if walk is None or walk.written or walk.exhausted or id(loaded) in walk.met:
            if walk is not None:
                walk.exhausted = True
            walk = self._replays[first.loader_id] = first.another()
            walk.length, walk.length_is_sure = (first.drawn if first.exhausted else -1), True
        walk.met.add(id(loaded))
        walk.drawn += 1
        copy = LoadedBatch(walk, loaded.indices, loaded.size, loaded.images, loaded.targets, keys=loaded.keys)
        copy.used = True
        return copy

    # -- images from no loader ----------------------------------------------------------------

    def unloaded(self, images: torch.Tensor, current: OpenBatch | None, grad_enabled: bool, training: bool) -> LoadedBatch | None:
        """A batch of images that no loader gave; None where they are the open batch once more, or no images.

        ``training``: the mode of the module that is called. Where nothing learns it tells one pass from the next: statistics of
        BatchNorm that are made anew from the validation that follows.
        """
        if torch._C._functorch.is_functorch_wrapped_tensor(images):
            return None  # inside a function transform: it has no memory of its own
        row = _place_in_memory(images)
        if images.ndim < 3 and not self._stand_alone(images, row, current):
            return None
        kept = images.ndim < 3 and current is not None and len(current.shape) >= 3  # features, after the images themselves
        if current is not None and not kept and self._is_current(images, row, current, grad_enabled):
            return None
        loaded = LoadedBatch(None, None, int(images.shape[0]), [(weakref.ref(images), images.data_ptr())])
        loaded.used = True
        loaded.origin = images
        loaded.row = row
        taken = self._taken.of(images, grad_enabled) if row is None else Rows(row[0], np.arange(row[1], row[1] + len(images)))
        dataset, own = -1, None
        if taken is not None:
            dataset = self.samples.memory_id(taken.source)
            own = self.samples.keys_of(dataset, taken.positions)
        loaded.keys = own if own is not None else content_keys(images)
        walk = current.walk if current is not None and current.walk.loader_id < 0 else None
        marks, learned = loaded.marks(), self._is_learned(loaded.keys.tolist(), grad_enabled)
        turned = current is not None and (
            current.with_gradients != grad_enabled or (not grad_enabled and current.in_train_mode != training)
        )
        if walk is None or turned or learned != walk.learned or walk.has_met(marks):
            if walk is not None:
                walk.exhausted = True
            walk = Walk(None, -1, dataset, None, self.samples.ids_of_keys)
            walk.learned = learned
        loaded.walk = walk
        walk.meet(marks)
        self._last = walk, grad_enabled
        return loaded

    def _is_learned(self, keys: list[int], grad_enabled: bool) -> bool:
        """Whether (nearly) all images with these contents are given to training, or were: what follows them is another walk."""
        if grad_enabled:
            if len(self._learned) < MOST_LEARNED:
                self._learned.update(keys)
            return True
        return len(self._learned.intersection(keys)) > REPEATED_SHARE * len(set(keys))

    def _stand_alone(self, images: torch.Tensor, row: tuple[Any, int] | None, current: OpenBatch | None) -> bool:
        """Whether rows of numbers that no loader gave are data: features too, which a program has made of its images once."""
        if images.requires_grad:
            return False
        if not self.pictures_seen:
            return row is not None
        if not images.is_floating_point() or current is None:
            return images.is_floating_point()
        if current.walk.loader_id >= 0:
            return current.walk.exhausted
        if len(current.shape) < 3 or not current.with_gradients:
            return True
        # Within a step of a training on images they are a few of the program's own: prototypes, queries.
        return current.walk.steps > current.steps_before and len(images) >= current.size

    def _is_current(self, images: torch.Tensor, row: tuple[Any, int] | None, current: OpenBatch, grad_enabled: bool) -> bool:
        """Whether unknown images are those of the open batch, perhaps changed by the program."""
        if images.shape[0] != current.size:
            return False
        loaded = current.loaded
        if loaded is None:
            return True
        if current.walk.loader_id < 0:
            if grad_enabled and current.with_gradients and current.walk.steps > current.steps_before:
                return False  # another step, be it on the same images
            if row is not None and loaded.row is not None and row[0] is loaded.row[0]:
                return row[1] == loaded.row[1]
            return loaded.origin is not None and are_akin(loaded.origin, images)
        if row is not None and not loaded.shares_memory(images):
            known = self.samples.datasets.knows(row[0])
            self.samples.memory_id(row[0])
            if known or len(row[0]) > SLICES * len(images):
                return False
        # In a loop over a loader, what is unknown is a batch that the program has changed. After its end it is something else.
        if not current.walk.is_over:
            return True
        own = next((t for t in (ref() for ref, _ in loaded.images) if t is not None and t.ndim == images.ndim), None)
        return own is None or are_akin(own, images) or current.with_gradients == grad_enabled


def _place_in_memory(images: torch.Tensor) -> tuple[Any, int] | None:
    """(the tensor that these images are rows of, the first row's number); None where they are no slice of a larger one."""
    base = images._base
    if base is None or base.ndim != images.ndim or not len(images) or len(base) <= len(images) or base.device != images.device:
        return None
    if base.shape[1:] != images.shape[1:] or base.stride()[1:] != images.stride()[1:] or base.dtype != images.dtype:
        return None
    width = max(1, base.stride(0)) * base.element_size()
    first, rest = divmod(images.data_ptr() - base.data_ptr(), width)
    if rest or not 0 <= first < len(base) or (len(images) > 1 and images.stride(0) != base.stride(0)):
        return None
    return base, int(first)
