"""Which rows of a program's own tensors its next batch is made of, where it takes them by their numbers.

A batch that was cropped, turned or normalised by hand has contents of its own each time; the rows that it was taken from have
not. They are believed where just as many were taken, of one tensor, since the last batch, and where, once at the beginning, the
batch is as bright and as varied as these rows are, image by image: a program may take its rows ahead.
"""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

MOST_TAKEN = 1 << 17  # numbers of one tensor's rows between two batches
MOST_SOURCES = 64
# Of the first batches of a tensor, so many may be told to be made of it by their looks.
TRIES = 4
FEWEST, MANY = 4, 8  # images that are compared
# Mean correlation of light, and share of images that are likest to their own row (of few: the second number); how far apart the
# light of other images' rows correlates, in standard errors.
LEAST_ALIKE, SURELY = 0.5, 0.75
BY_CHANCE = 2.5
SIDE = 6  # of small images


@dataclass
class _Taken:
    """What was taken of one tensor since the last batch. It is not kept alive: a program may be done with it."""

    source: weakref.ref[torch.Tensor]
    indices: list[Any] = field(default_factory=list)
    count: int = 0


@dataclass(frozen=True)
class Rows:
    """The rows of a tensor that a batch is made of."""

    source: torch.Tensor
    positions: npt.NDArray[np.int64]  # (N,)


class Gathers:
    """Listens to what is taken between two batches."""

    def __init__(self) -> None:
        self._taken: dict[int, _Taken] = {}  # by id() of the source
        # Rows in another order, of which batches are cut: by id() of the result, that, what it was taken of, and which rows.
        self._ordered: dict[int, tuple[weakref.ref[torch.Tensor], weakref.ref[torch.Tensor], npt.NDArray[np.int64]]] = {}
        self._believed: dict[int, tuple[weakref.ref[torch.Tensor], bool]] = {}  # by id() of the source
        self._tried: dict[int, int] = {}

    def add(self, source: torch.Tensor, index: Any, result: torch.Tensor) -> None:
        """Rows of ``source`` were taken."""
        count = 1 if type(index) is int else _length(index, result)
        if count < 1:
            return
        taken = self._taken.get(id(source))
        if taken is None or taken.source() is not source:
            if len(self._taken) >= MOST_SOURCES:
                return
            taken = self._taken[id(source)] = _Taken(weakref.ref(source))
        if taken.count + count > MOST_TAKEN:
            return
        taken.count += count
        taken.indices.append(index)
        if count > 1 and not isinstance(index, slice) and 2 * count > len(source):
            self._keep_order(source, index, result)

    def _keep_order(self, source: torch.Tensor, index: Any, result: torch.Tensor) -> None:
        positions = _positions(index, len(source))
        if positions is not None:
            self._ordered = {k: v for k, v in self._ordered.items() if v[0]() is not None}
            rows = self._first(Rows(source, positions))
            self._ordered[id(result)] = weakref.ref(result), weakref.ref(rows.source), rows.positions

    def _first(self, rows: Rows) -> Rows:
        """The same rows as numbers of the tensor that was there first."""
        known = self._ordered.get(id(rows.source))
        source = known[1]() if known is not None and known[0]() is rows.source else None
        return Rows(source, known[2][rows.positions]) if known is not None and source is not None else rows

    def clear(self) -> None:
        """A batch begins: what was taken before it belongs to it, or to nothing."""
        self._taken = {}

    def of(self, images: torch.Tensor, cut: tuple[torch.Tensor, int] | None) -> Rows | None:
        """The rows that these images (N, ...) are made of; None where that is not clear.

        ``cut``: the tensor that they are rows of as they stand, and the first one's number.
        """
        if cut is not None:
            whole = self._first(Rows(cut[0], cut[1] + np.arange(len(images))))
            return whole if whole.source is not cut[0] else None  # else they are known as they are
        fitting = [rows for taken in self._taken.values() if (rows := _rows_of(taken, images)) is not None]
        if len(fitting) != 1:
            return None
        rows = self._first(fitting[0])
        return rows if len(rows.source) > len(images) and self._believes(rows, images) else None

    def _believes(self, rows: Rows, images: torch.Tensor) -> bool:
        """Whether batches are made of this tensor's rows at the time when these are taken."""
        key = id(rows.source)
        known = self._believed.get(key)
        if known is not None and known[0]() is rows.source:
            return known[1]
        if len(images) < FEWEST:
            return False
        alike = _are_these(rows.source[torch.from_numpy(rows.positions).to(rows.source.device)], images)
        self._tried[key] = self._tried.get(key, 0) + 1
        if alike or self._tried[key] >= TRIES:
            self._believed[key] = weakref.ref(rows.source), alike
        return alike


def _length(index: Any, result: torch.Tensor) -> int:
    """How many rows were taken; 0 where the index is no list of their numbers."""
    if isinstance(index, slice):
        return len(result)
    if isinstance(index, list):
        return len(index) if all(type(i) is int for i in index) else 0
    if isinstance(index, torch.Tensor):
        whole = index.ndim == 1 and not index.is_floating_point() and index.dtype not in (torch.bool, torch.uint8)
    else:
        whole = index.ndim == 1 and index.dtype.kind in "iu"
    return len(index) if whole else 0


def _positions(index: Any, size: int) -> npt.NDArray[np.int64] | None:
    if isinstance(index, slice):
        return np.arange(size)[index]
    if isinstance(index, torch.Tensor):
        found = index.detach().cpu().numpy()
    else:
        found = np.asarray([index] if isinstance(index, int) else index)
    found = found.astype(np.int64)
    found = np.where(found < 0, found + size, found)
    return found if len(found) and found.min() >= 0 and found.max() < size else None


def _rows_of(taken: _Taken, images: torch.Tensor) -> Rows | None:
    """The rows, where they are as many as the images, taken at once or one by one, and may be images as these are."""
    source, n = taken.source(), len(images)
    if source is None:
        return None
    row = source.ndim - 1
    if row not in ((1,) if images.ndim == 2 else (images.ndim - 1, images.ndim - 2)) or (row == 1 and images.ndim > 2):
        return None
    whole = [i for i in taken.indices if not isinstance(i, int)]
    if len(whole) > 1 or (whole and len(taken.indices) > 1) or taken.count != n:
        return None
    if whole:
        positions = _positions(whole[0], len(source))
    else:
        positions = _positions(list(taken.indices), len(source))
    return Rows(source, positions) if positions is not None and len(positions) == n else None


def _are_these(rows: torch.Tensor, images: torch.Tensor) -> bool:
    """Whether images (N, ...) are made of these rows (N, ...), one of each, and not of as many others.

    By brightness and contrast, which crops and turns leave nearly as they were; or since most images are more like their own row,
    small and perhaps mirrored, than like any other of the batch.
    """
    return _light_agrees(rows, images) or _each_is_likest(rows, images)


def _light_agrees(rows: torch.Tensor, images: torch.Tensor) -> bool:
    n = len(images)
    pair = []
    for batch in (rows, images):
        flat = batch.detach().reshape(n, -1).double()
        pair.append(torch.stack([flat.mean(1), flat.std(1)]).cpu().numpy())
    found = []
    for a, b in zip(*pair, strict=True):
        if min(a.std(), b.std()) > 1e-6 * max(1.0, np.abs(a).max(), np.abs(b).max()):
            found.append(abs(float(np.corrcoef(a, b)[0, 1])))  # a negative is as bright as its image is dark
    return bool(found) and float(np.mean(found)) >= max(LEAST_ALIKE, BY_CHANCE / math.sqrt(n))


def _each_is_likest(rows: torch.Tensor, images: torch.Tensor) -> bool:
    own, other = _small(rows), _small(images)
    if own is None or other is None:
        return False
    n = len(other)
    for one, two in ((own, other), (_each_alone(own), _each_alone(other))):
        ways = (_standard(one), _standard(one.flip(2)))
        far = torch.stack([torch.cdist(_standard(two).flatten(1), w.flatten(1)) for w in ways]).amin(0)
        share = float((far.argmin(1) == torch.arange(n)).double().mean())
        if share >= (LEAST_ALIKE if n >= MANY else SURELY):
            return True
    return False


def _small(batch: torch.Tensor) -> torch.Tensor | None:
    """(N, SIDE, SIDE) grey, on the CPU; None of what has no rows and columns."""
    images = batch.detach().double()
    if images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        images = images.permute(0, 3, 1, 2)
    if images.ndim not in (3, 4):
        return None
    grey = images.mean(1, keepdim=True) if images.ndim == 4 else images[:, None]
    return torch.nn.functional.adaptive_avg_pool2d(grey, SIDE)[:, 0].cpu()


def _standard(small: torch.Tensor) -> torch.Tensor:
    return (small - small.mean()) / small.std().clamp_min(1e-12)


def _each_alone(small: torch.Tensor) -> torch.Tensor:
    """The same without the brightness and contrast of each."""
    over = (1, 2)
    return (small - small.mean(over, keepdim=True)) / small.std(over, keepdim=True).clamp_min(1e-12)
