"""Some images of a pass as the model is given them, spread over its batches, small: what their reading is judged by."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from valgap.record.writer import RecordWriter
from valgap.seams.inputs import quantized

# Enough for a probe of ten classes to tell ten points; at 96 pixels they take 4 MB.
KEPT = 160
KEPT_SIDE = 96
# Of each batch, where a pass's length is not known.
FEW = 8
MAX_PASSES = 4  # data sets and kinds: train and val, and what else is there


class KeptPasses:
    """Writes what the first pass over each data set kept, of either kind, at once; of the last one when the program ends."""

    def __init__(self, writer: RecordWriter) -> None:
        self.writer = writer
        self._last: dict[tuple[int, str], dict[str, Any] | None] = {}  # by data set and kind, what is still to be written

    def add(self, index: int, dataset: int, kind: str, keeper: InputKeeper) -> None:
        """A pass of this kind ("train" or "eval") is over."""
        place = (dataset, kind)
        kept = keeper.result() if dataset >= 0 else None
        if kept is None or (place not in self._last and len(self._last) >= MAX_PASSES):
            return
        body = {"pass": index, **kept}
        if place in self._last:
            self._last[place] = body
        else:
            self.writer.write("kept", body)
            self._last[place] = None

    def finish(self) -> None:
        """The program has ended."""
        for body in filter(None, self._last.values()):
            self.writer.write("kept", body)
        self._last = dict.fromkeys(self._last)


class InputKeeper:
    """Gathers the images of one pass of ``length`` batches (-1 unknown)."""

    def __init__(self, length: int) -> None:
        self._of_batch = math.ceil(KEPT / length) if length > 0 else FEW
        self._every = max(1, length // KEPT) if length > 0 else 1
        self._positions: list[int] = []
        self._images: list[torch.Tensor] = []
        self._shape: tuple[int, ...] = ()
        self._seen = 0  # images
        self._named = 0  # positions whose samples are known
        self.samples: list[int] = []

    def add(self, images: torch.Tensor, number: int) -> None:
        """Look at the batch (N, C, H, W) of this number, from 0."""
        first, self._seen = self._seen, self._seen + len(images)
        room = min(self._of_batch, KEPT - len(self._positions), len(images))
        if room < 1 or number % self._every or images.ndim != 4 or images.shape[1] not in (1, 3):
            return
        side = [min(n, KEPT_SIDE) for n in images.shape[2:]]
        shape = (images.shape[1], *side)
        if self._shape not in ((), shape):
            return  # of another size: they could not be laid on one another
        self._shape = shape
        step = len(images) // room
        few = images[: room * step : step].detach().float()
        small = torch.nn.functional.interpolate(few, side, mode="area") if few.shape[2:] != torch.Size(side) else few.clone()
        self._positions += range(first, first + room * step, step)
        self._images.append(small)

    def name(self, samples: Any, first: int) -> None:
        """The ids of the samples at positions ``first`` .. of the pass, (n,)."""
        while self._named < len(self._positions) and self._positions[self._named] < first + len(samples):
            self.samples.append(int(samples[self._positions[self._named] - first]))
            self._named += 1

    def result(self) -> dict[str, Any] | None:
        """The fields of KeptInputs but the pass; None where no sample is known."""
        known = [i for i, s in enumerate(self.samples) if s >= 0]
        if not known:
            return None
        return {
            "sample": np.array([self.samples[i] for i in known], np.int32),
            **quantized(torch.cat(self._images)[known]),
        }
