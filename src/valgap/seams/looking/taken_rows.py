"""Which rows of a program's own arrays its next batch is made of, where it takes them by their numbers.

A batch that was cropped, turned or normalised by hand has contents of its own each time; the rows that it was taken from have
not. ``x[index]`` cannot be heard: a class that defines ``__getitem__`` in Python becomes a sequence to C, and programs break. But
the variables of the functions that call the model show it: an array of images, and as many numbers as the batch has images. Both
are believed where, image by image, the batch looks like these rows; then the same variables are asked each time.
"""

from __future__ import annotations

import gc
import math
import sys
import types
import weakref
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from valgap.seams.looking.frames import locals_of, program_frames

MOST_FRAMES = 4  # of the program, the innermost ones
MOST_VALUES, MOST_INSIDE = 400, 40  # variables of a frame, and values in one of them, that are looked at
MOST_PAIRS = 64  # of an array and numbers, that are compared with a batch
MOST_ORDERS, MOST_BEGINS = 3, 8
# Of the batches of one place in the program, so many may be told to be made of its arrays by their looks.
TRIES = 4
EVERY = 8  # batches for each look for new generators
SURE = 2  # batches after the first that the same variables have told: from then on they are believed
FEWEST, MANY = 4, 8  # images that are compared
# Share of images that are likest to their own row (of few: the second number); mean correlation of light, which is that of other
# rows, among all pairs that are tried, beyond so many standard errors only.
LEAST_ALIKE, SURELY = 0.5, 0.75
LIGHT, BY_CHANCE = 0.8, 4.0
SIDE = 6  # of small images
YOUNG_FIRST = (0, 1, 2)
LISTS = (torch.Tensor, np.ndarray, list, tuple, range)
INSTALLED = tuple({sys.prefix, sys.base_prefix})

Place = tuple[types.CodeType, tuple[Any, ...]]  # of a value: the function's code, and the names that lead to it
Variables = list[tuple[types.CodeType, dict[str, Any]]]  # of functions, the innermost first


@dataclass(frozen=True)
class Rows:
    """The rows of an array that a batch is made of."""

    source: Any  # a tensor or an array
    positions: npt.NDArray[np.int64]  # (N,)

    def taken(self) -> torch.Tensor:
        """(N, ...) the rows as they are now."""
        whole = self.source if isinstance(self.source, torch.Tensor) else torch.as_tensor(self.source[self.positions])
        return whole if whole is not self.source else whole[torch.from_numpy(self.positions).to(whole.device)]


class TakenRows:
    """Finds them; knows where it has found them before."""

    def __init__(self) -> None:
        # By the innermost function: those that have told its batches so far, of how many after the first.
        self._ways: dict[types.CodeType, list[Way]] = {}
        self._agreed: Counter[types.CodeType] = Counter()
        self._tried: Counter[types.CodeType] = Counter()
        self._generators: list[weakref.ref[Any]] = []  # of the program's, that are under way
        self._calls = self._scans = 0

    def of(self, images: torch.Tensor, learning: bool) -> Rows | None:
        """The rows that these images (N, ...) are made of; None where that is not clear. ``learning``: whether in a training."""
        frames = [frame for frame, _ in zip(program_frames(), range(MOST_FRAMES), strict=False)]
        if not frames:
            return None
        here = frames[0].f_code
        # An evaluation in the same function finds the numbers of the last training batch still there: it is always looked at.
        ways, sure = self._ways.get(here, []), learning and self._agreed[here] >= SURE
        self._calls += 1
        if not ways and self._tried[here] >= TRIES:
            return None
        own = [*((frame.f_code, locals_of(frame)) for frame in frames), (here, frames[0].f_globals)]
        for found in self._where(own, learning) if ways else ():
            fitting = _fitting(ways, found, images, sure)
            if fitting and learning:
                self._ways[here] = [way for way, _ in fitting]
                self._agreed[here] += 1
            if fitting:
                return fitting[0][1]
        if sure or not learning or len(images) < FEWEST or self._tried[here] >= TRIES:
            return None
        self._tried[here] += 1
        self._agreed[here] = 0
        for found in self._where(own, learning):
            fitting = _fitting(_ways_in(found, images), found, images, sure=False)
            self._ways[here] = [way for way, _ in fitting]
            if fitting:
                return fitting[0][1]
        return None

    def _where(self, own: Variables, learning: bool) -> Iterator[Variables]:
        """The variables of the calling functions; with those of generators that have given a batch and wait; with new ones."""
        yield own
        if self._generators:
            yield [*self._suspended(), *own]
        if learning and EVERY * self._scans <= self._calls + EVERY * TRIES:
            self._scans += 1
            for generation in YOUNG_FIRST:  # one that was made for this epoch is young, and the young ones are few
                waiting = (g for g in gc.get_objects(generation) if type(g) is types.GeneratorType)
                self._generators = [weakref.ref(g) for g in waiting if _is_programs(g)][:MOST_FRAMES]
                if self._generators:
                    break
            yield [*self._suspended(), *own]

    def _suspended(self) -> Variables:
        alive = (ref() for ref in self._generators)
        return [(g.gi_code, locals_of(g.gi_frame)) for g in alive if g is not None and g.gi_frame is not None]


def _is_programs(generator: types.GeneratorType[Any, Any, Any]) -> bool:
    """Whether it is under way, and no library's."""
    frame = generator.gi_frame
    if frame is None or generator.gi_running or frame.f_lasti < 0:
        return False
    name = frame.f_code.co_filename
    return not name.startswith(INSTALLED) and "site-packages" not in name and not name.startswith("<")


def _fitting(ways: list[Way], variables: Variables, images: torch.Tensor, sure: bool) -> list[tuple[Way, Rows]]:
    """Those of the ways that give rows now which the images look like; ``sure``: the first one, whatever they look like."""
    found: list[tuple[Way, Rows]] = []
    for way in ways:
        rows = _rows(_at(way[0], variables), way[1].of(variables, len(images)), images)
        if rows is not None and sure:
            return [(way, rows)]
        if rows is not None and (_are_these(rows.taken(), images) if len(images) >= FEWEST else bool(found) or len(ways) == 1):
            found.append((way, rows))
    return found


@dataclass(frozen=True)
class Numbers:
    """Variables that say which rows are taken: their numbers, or where a slice begins, or a slice of an order of all rows."""

    listed: Place | None
    begin: Place | None

    def of(self, variables: Variables, n: int) -> npt.NDArray[np.int64] | None:
        """(n,) the numbers as they are now."""
        start = _at(self.begin, variables) if self.begin is not None else 0
        if type(start) is not int or start < 0:
            return None
        if self.listed is None:
            return start + np.arange(n)
        value = _at(self.listed, variables)
        part = value[start : start + n] if isinstance(value, LISTS) and getattr(value, "ndim", 1) == 1 else None
        if not _is_list_of_numbers(part, n, n) or (self.begin is None and len(value) != n):
            return None
        found = part.detach().cpu().numpy() if isinstance(part, torch.Tensor) else np.asarray(part)
        return found.astype(np.int64)


Way = tuple[Place, Numbers]  # of the array, and which of its rows


def _ways_in(variables: Variables, images: torch.Tensor) -> list[Way]:
    """Arrays and numbers that may be what the images were taken of; those of inner functions, and whole lists, first."""
    values = [((code, path), value) for code, own in variables for path, value in _inside(own)]
    arrays = {id(value): place for place, value in reversed(values) if _may_be_source(value, images)}
    n = len(images)
    begins = [place for place, value in values if type(value) is int and value >= 0][:MOST_BEGINS]
    orders = [place for place, value in values if _is_list_of_numbers(value, n, None)][:MOST_ORDERS]
    numbers = [Numbers(place, None) for place, value in values if _is_list_of_numbers(value, n, n)]
    numbers += [Numbers(order, begin) for order in orders for begin in begins]
    numbers += [Numbers(None, begin) for begin in begins]
    return [(place, one) for one in numbers for place in reversed(arrays.values())][:MOST_PAIRS]


def _inside(own: dict[str, Any]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Values by the names that lead to them: variables, what is in their lists and dicts, attributes of ``self``."""
    for name, value in list(own.items())[:MOST_VALUES]:
        yield (name,), value
        if type(value) is dict:  # what is derived from it may do something when it is asked
            inner = list(value.items())
        elif type(value) in (list, tuple) and len(value) <= MOST_INSIDE:
            inner = list(enumerate(value))
        elif name == "self":
            inner = list(getattr(value, "__dict__", {}).items())
        else:
            continue
        for key, one in inner[:MOST_INSIDE]:
            if isinstance(one, (torch.Tensor, np.ndarray)):
                yield (name, key), one


def _at(place: Place, variables: Variables) -> Any:
    code, (name, *rest) = place
    for own_code, own in variables:
        if own_code is code and name in own:
            value = own[name]
            for key in rest:
                try:
                    value = value.__dict__[key] if name == "self" else value[key]
                except (KeyError, IndexError, TypeError, AttributeError):
                    return None
            return value
    return None


def _may_be_source(value: Any, images: torch.Tensor) -> bool:
    if isinstance(value, torch.Tensor):
        if value.requires_grad or value.is_sparse or value.is_meta:
            return False
    elif not isinstance(value, np.ndarray) or value.dtype.kind not in "uif":
        return False
    wanted = (2,) if images.ndim == 2 else (images.ndim, images.ndim - 1)
    return value.ndim in wanted and value.ndim > 1 and len(value) > len(images)


def _is_list_of_numbers(value: Any, least: int, exactly: int | None) -> bool:
    """Whether it is a list of whole numbers of that length, or where none is given, of more than ``least``."""
    if isinstance(value, torch.Tensor):
        whole = value.ndim == 1 and not value.is_floating_point() and not value.is_complex() and value.dtype != torch.bool
    elif isinstance(value, np.ndarray):
        whole = value.ndim == 1 and value.dtype.kind in "iu"
    else:
        whole = isinstance(value, (list, tuple, range))
    if not whole or (len(value) != exactly if exactly is not None else len(value) <= least):
        return False
    return isinstance(value, (torch.Tensor, np.ndarray, range)) or all(isinstance(i, (int, np.integer)) for i in value)


def _rows(source: Any, numbers: npt.NDArray[np.int64] | None, images: torch.Tensor) -> Rows | None:
    if numbers is None or not _may_be_source(source, images):
        return None
    return Rows(source, numbers) if numbers.min() >= 0 and numbers.max() < len(source) else None


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
    return bool(found) and float(np.mean(found)) >= max(LIGHT, BY_CHANCE / math.sqrt(n))


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
