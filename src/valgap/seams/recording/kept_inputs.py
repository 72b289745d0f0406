"""Some images of a pass as the model is given them, spread over its batches, small: what their reading is judged by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from valgap.record.writer import RecordWriter
from valgap.seams.looking.inputs import quantized

# Intervals of what probes tell of 160 images are ten points wide either way, of 512 half of that. A byte a value, within these.
KEPT = 512
KEPT_BYTES = 8 << 20
KEPT_SIDE = 96
MAX_PASSES = 4  # data sets and kinds: train and val, and what else is there


class KeptPasses:
    """Writes what the first pass over each data set kept, of either kind, at once; of the last one when the program ends."""

    def __init__(self, writer: RecordWriter) -> None:
        self.writer = writer
        self._last: dict[tuple[str, int, str], dict[str, Any] | None] = {}  # by event, data set and kind: still to be written

    def add(self, index: int, dataset: int, kind: str, event: str, kept: dict[str, Any] | None) -> None:
        """A pass of this kind ("train" or "eval") is over; the event's name ("kept", "rows") and its body."""
        place = (event, dataset, kind)
        of_event = sum(p[0] == event for p in self._last)
        if kept is None or (place not in self._last and of_event >= MAX_PASSES):
            return
        body = {"pass": index, **kept}
        if place in self._last:
            self._last[place] = body
        else:
            self.writer.write(event, body)
            self._last[place] = None

    def finish(self) -> None:
        """The program has ended."""
        for (event, _, _), body in self._last.items():
            if body is not None:
                self.writer.write(event, body)
        self._last = dict.fromkeys(self._last)


class InputKeeper:
    """Gathers the images of one pass of ``length`` batches; where that is not known (-1), of ever fewer of each batch."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._most = KEPT  # images
        self._of_batch, self._every = KEPT, 1
        self._groups: list[_Group] = []
        self._shape: tuple[int, ...] = ()
        self._seen = 0  # images

    def add(self, images: torch.Tensor, number: int) -> None:
        """Look at the batch (N, C, H, W) of this number, from 0."""
        first, self._seen = self._seen, self._seen + len(images)
        if number % self._every or images.ndim != 4 or images.shape[1] not in (1, 3):
            return
        side = [min(n, KEPT_SIDE) for n in images.shape[2:]]
        shape = (images.shape[1], *side)
        if self._shape not in ((), shape):
            return  # of another size: they could not be laid on one another
        if not self._shape:
            self._plan(shape, len(images))
        while self._length <= 0 and self._held + min(self._of_batch, len(images)) > self._most:
            self._thin()
        room = min(self._of_batch, self._most - self._held, len(images))
        if room < 1 or number % self._every:
            return
        step = len(images) // room
        few = images[: room * step : step].detach().float()
        small = torch.nn.functional.interpolate(few, side, mode="area") if few.shape[2:] != torch.Size(side) else few.clone()
        self._groups.append(_Group(number, dict.fromkeys(range(first, first + room * step, step), -1), small))

    def _plan(self, shape: tuple[int, ...], size: int) -> None:
        """How many of each batch (of this size), and of which batches: as many as have room at this (C, H, W)."""
        self._shape = shape
        self._most = max(1, min(KEPT, KEPT_BYTES // math.prod(shape)))
        self._of_batch = min(self._most, size)
        if self._length > 0:
            self._of_batch = math.ceil(self._most / self._length)
            self._every = max(1, self._length // self._most)

    @property
    def _held(self) -> int:
        return sum(len(g.samples) for g in self._groups)

    def _thin(self) -> None:
        """Half of what is held: of every batch, or, where these have one image left, of the batches."""
        if self._of_batch > 1:
            self._of_batch = max(1, self._of_batch // 2)
            self._groups = [_Group(g.number, dict(list(g.samples.items())[::2]), g.images[::2]) for g in self._groups]
        else:
            self._every *= 2
            self._groups = [g for g in self._groups if not g.number % self._every]

    def name(self, samples: Any, first: int) -> None:
        """The ids of the samples at positions ``first`` .. of the pass, (n,)."""
        for group in reversed(self._groups):
            inside = [p for p in group.samples if first <= p < first + len(samples)]
            if not inside and max(group.samples) < first:
                return
            group.samples.update((p, int(samples[p - first])) for p in inside)

    def result(self) -> dict[str, Any] | None:
        """The fields of KeptInputs but the pass; None where no sample is known."""
        known = {id(g): [i for i, s in enumerate(g.samples.values()) if s >= 0] for g in self._groups}
        groups = [g for g in self._groups if known[id(g)]]
        if not groups:
            return None
        whole = [len(known[id(g)]) == len(g.images) for g in groups]
        images = [g.images if all_of_it else g.images[known[id(g)]] for g, all_of_it in zip(groups, whole, strict=True)]
        samples = [s for g in groups for s in g.samples.values() if s >= 0]
        return {"sample": np.array(samples, np.int32), **quantized(*images)}


@dataclass
class _Group:
    """What is held of one batch: position in the pass -> sample id (-1: not told yet), and the images in that order."""

    number: int
    samples: dict[int, int]
    images: torch.Tensor
