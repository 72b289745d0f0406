"""How a program comes from images to logits, so that it can be gone again after the program has ended.

One module that is called on images and returns logits is its own route. Where a program calls several one after the
other, what it does between them cannot be seen; then the functions of the program that were at work are tried, and
usual steps between the modules. A way counts only where it gives the recorded logits of a recorded batch again.
"""

from __future__ import annotations

import copy
import dis
import itertools
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as functional
from torch import nn

from valgap.seams.looking.batches import find_logits
from valgap.seams.looking.frames import locals_of, program_frames

# Enough to tell a right way from a wrong one; kept of one batch of a pass.
KEPT_IMAGES = 16
# Mean difference over the spread of the logits. Half precision in the program stays far below, a step left out far above.
ALIKE = 0.05
BETWEEN: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
    lambda x: x,
    lambda x: x.flatten(1),
    lambda x: functional.relu(x),
    lambda x: functional.relu(x).flatten(1),
    lambda x: x.mean((2, 3)) if x.ndim == 4 else x.mean(1),
    lambda x: functional.relu(x).mean((2, 3)),
    lambda x: functional.gelu(x),
    lambda x: functional.normalize(x, dim=1),
    lambda x: x[:, 0],
)
MAX_COMBINATIONS = 100
# What a function that only computes does not call, and the instructions that it does not have.
DOES = frozenset(("backward", "step", "zero_grad", "print", "log", "write", "append", "extend", "update", "save", "item", "open"))
LEAVES = ("STORE_ATTR", "STORE_SUBSCR", "STORE_GLOBAL", "DELETE_ATTR", "DELETE_SUBSCR", "DELETE_GLOBAL")


class _Images:
    """Stands for the images in what a call was given."""


IMAGES = _Images()


@dataclass(frozen=True)
class Given:
    """What a module or function was given, with the images taken out."""

    call: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    holder: nn.Module | None = None  # the module whose modes matter
    # The same with the labels that it was given beside the images, of the first few; None where it was given none.
    labelled: tuple[tuple[Any, ...], dict[str, Any]] | None = None

    def __call__(self, images: torch.Tensor) -> Any:
        """Call it again on other images."""
        return self.call(*_filled(self.args, images), **_filled(self.kwargs, images))

    def with_labels(self) -> Given:
        """The call as it was, with the labels of the few images that are kept."""
        return replace(self, args=self.labelled[0], kwargs=self.labelled[1]) if self.labelled is not None else self


def given(call: Callable[..., Any], args: Any, kwargs: Any, images: torch.Tensor, holder: nn.Module | None = None) -> Given:
    """The call as a pattern for other images; what else belongs to the single images (labels, paths) is left out."""
    kept = list(_emptied(tuple(args), images))
    while kept and kept[-1] is None:
        kept.pop()
    named = {k: v for k, v in _emptied(dict(kwargs), images).items() if v is not None or kwargs[k] is None}
    return Given(call, tuple(kept), named, holder, _labelled(args, kwargs, images))


def _labelled(args: Any, kwargs: Any, images: torch.Tensor) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """What a call was given, with the labels beside the images, whole numbers (N,), cut to the first few; None without any."""
    labels = [v for v in (*args, *kwargs.values()) if _is_label(v, len(images))]
    if not labels:
        return None
    few = {id(v): v[:KEPT_IMAGES].detach().clone() for v in labels}
    places = tuple(few.get(id(a), e) for a, e in zip(args, _emptied(tuple(args), images), strict=True))
    return places, {k: few.get(id(v), _emptied(v, images)) for k, v in kwargs.items()}


def _is_label(value: Any, n: int) -> bool:
    whole = isinstance(value, torch.Tensor) and not value.is_floating_point() and not value.is_complex()
    return bool(whole and value.dtype != torch.bool and value.shape == (n,))


def _emptied(value: Any, images: torch.Tensor) -> Any:
    if value is images:
        return IMAGES
    if isinstance(value, torch.Tensor):
        return None
    if isinstance(value, tuple):
        parts = [_emptied(v, images) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, list):
        return [_emptied(v, images) for v in value]
    if isinstance(value, Mapping):
        found = {k: _emptied(v, images) for k, v in value.items()}
        return {k: v for k, v in found.items() if v is not None or value[k] is None}
    if getattr(value, "tensors", None) is images:
        return _Holder(value)
    return value


class _Holder:
    """An object that carries the images as its ``tensors`` and what belongs to them beside it (a padding mask)."""

    def __init__(self, value: Any) -> None:
        self.value = copy.copy(value)
        self.value.tensors = None
        for name, beside in vars(value).items():
            if isinstance(beside, torch.Tensor) and name != "tensors":
                setattr(self.value, name, beside[:1].detach().clone())

    def filled(self, images: torch.Tensor) -> Any:
        made = copy.copy(self.value)
        made.tensors = images
        for name, beside in vars(self.value).items():
            if isinstance(beside, torch.Tensor):
                setattr(made, name, beside.expand(len(images), *beside.shape[1:]))
        return made


def _filled(value: Any, images: torch.Tensor) -> Any:
    if value is IMAGES:
        return images
    if isinstance(value, _Holder):
        return value.filled(images)
    if isinstance(value, tuple):
        parts = [_filled(v, images) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, list):
        return [_filled(v, images) for v in value]
    if isinstance(value, Mapping):
        return {k: _filled(v, images) for k, v in value.items()}
    return value


def owner_of(module: nn.Module) -> nn.Module | None:
    """The module whose method is calling ``module`` at this moment, as one of its own; the outermost of several."""
    found = None
    for frame in program_frames():
        holder = _holder(frame)
        if holder is not None and holder is not module and any(m is module for m in holder.modules()):
            found = holder
    return found


def functions_given(images: torch.Tensor) -> list[Given]:
    """The program's own functions, at work at this moment, that were given the images as an argument; outermost first."""
    found: list[Given] = []
    for frame in program_frames():
        names = frame.f_code.co_varnames[: frame.f_code.co_argcount]
        here = locals_of(frame)
        values = [here.get(n) for n in names]
        if not any(v is images for v in values):
            continue
        call, first = _function_of(frame, names)
        if call is not None and _only_computes(frame.f_code):
            found.append(given(call, values[first:], {}, images, _holder(frame)))
    return found[::-1]


def _holder(frame: types.FrameType) -> nn.Module | None:
    """The module whose method runs in this frame."""
    code = frame.f_code
    first = locals_of(frame).get(code.co_varnames[0]) if code.co_argcount else None
    return first if isinstance(first, nn.Module) and _code_of(getattr(type(first), code.co_name, None)) is code else None


def _function_of(frame: types.FrameType, names: tuple[str, ...]) -> tuple[Callable[..., Any] | None, int]:
    """(the function that runs in a frame, how many of its first arguments it has bound); (None, 0) if it cannot be named."""
    code = frame.f_code
    first = locals_of(frame).get(names[0]) if names else None
    if _code_of(getattr(type(first), code.co_name, None)) is code:
        return getattr(first, code.co_name), 1
    places = [frame.f_globals, *([locals_of(frame.f_back), frame.f_back.f_globals] if frame.f_back is not None else [])]
    for place in places:
        function = place.get(code.co_name)
        if _code_of(function) is code:
            return function, 0
    return None, 0


def _only_computes(code: Any) -> bool:
    """Whether a function seems to leave nothing behind, so that calling it once more does no harm."""
    if code is None or DOES & set(code.co_names):
        return False
    return not any(i.opname.startswith(LEAVES) for i in dis.get_instructions(code))


def _code_of(function: Any) -> Any:
    return getattr(getattr(function, "__wrapped__", function), "__code__", None)


@dataclass
class Route:
    """The calls of one batch from images to logits, in order, with a few images and the logits they gave."""

    steps: list[Given]
    functions: list[Given] = field(default_factory=list)  # the program's own, which may make all the steps
    owner: nn.Module | None = None
    images: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    straight: bool = True  # the logits are what the only step returned
    head: str | None = None  # which of several class scores in an output
    way: Callable[[torch.Tensor], Any] | None = None
    by_labels: bool = False  # whether the program's logits follow only from the labels that it gave the model with the images

    def __call__(self, images: torch.Tensor) -> Any:
        """What the program would have had of these images: logits, or something that holds them."""
        if self.way is None:
            raise ValueError("how the program comes from images to logits is not known")
        return self.way(images)

    def modules(self) -> list[nn.Module]:
        """Every module whose mode matters."""
        held = [g.holder for g in (*self.steps, *self.functions)]
        return [m for m in (*held, self.owner) if m is not None]

    def settle(self, same_weights: bool) -> str | None:
        """Choose the way; None, or why there is none. ``same_weights``: those that gave the kept logits.

        The modules must be in the mode of the pass.
        """
        if self.straight:
            self.way = self.steps[0]
            self.by_labels = same_weights and any(s.labelled is not None for s in self.steps) and self._needs_labels(self.way, 0)
            return None
        for way, own in self._ways():
            try:
                again = find_logits(way(self.images), len(self.images), self.head) if self.images is not None else None
            except Exception:  # a guess may fit in no way
                continue
            if self._right(again) if same_weights else own and again is not None and self._fits(again):
                self.way = way
                return None
        if same_weights and any(s.labelled is not None for s in self.steps):
            for number, (way, _) in enumerate(self._ways()):
                if self._needs_labels(way, number):
                    self.way, self.by_labels = way, True
                    return None
        return "several modules lead from the images to the logits, and what the program does between them could not be repeated"

    def _needs_labels(self, way: Callable[[torch.Tensor], Any], number: int) -> bool:
        """Whether this way, the ``number``-th, works without labels and gives the recorded logits only with them."""
        steps = [s.with_labels() for s in self.steps]
        told = replace(self, steps=steps, functions=[f.with_labels() for f in self.functions])
        with_labels = steps[0] if self.straight else next(itertools.islice(told._ways(), number, None))[0]
        try:
            few = self.images
            found = [find_logits(w(few), len(few), self.head) if few is not None else None for w in (way, with_labels)]
        except Exception:  # it cannot do without
            return False
        return found[0] is not None and self._fits(found[0]) and not self._right(found[0]) and self._right(found[1])

    def _ways(self) -> Iterator[tuple[Callable[[torch.Tensor], Any], bool]]:
        """(way, whether it is the program's own code), likeliest first."""
        yield from ((f, True) for f in self.functions)
        if self.owner is not None and _only_computes(_code_of(type(self.owner).forward)):
            yield self.owner, True
        between = itertools.product(BETWEEN, repeat=max(0, len(self.steps) - 1))
        for chosen in itertools.islice(between, MAX_COMBINATIONS):
            yield _Chain(self.steps, chosen), False
        for last in BETWEEN[1:]:
            yield _Chain(self.steps, (BETWEEN[0],) * (len(self.steps) - 1), last), False

    def _fits(self, again: torch.Tensor) -> bool:
        return self.logits is not None and again.shape == self.logits.shape

    def _right(self, again: torch.Tensor | None) -> bool:
        """Whether these are the recorded logits."""
        if again is None or self.logits is None or again.shape != self.logits.shape:
            return False
        recorded = self.logits.float()
        spread = float(recorded.std()) if recorded.numel() > 1 else 1.0
        difference = float((again.float() - recorded).abs().mean())
        return difference <= ALIKE * spread + 1e-6


@dataclass(frozen=True)
class _Chain:
    """The steps one after the other, with something between them."""

    steps: list[Given]
    between: tuple[Callable[[torch.Tensor], torch.Tensor], ...]
    last: Callable[[torch.Tensor], torch.Tensor] = BETWEEN[0]

    def __call__(self, images: torch.Tensor) -> Any:
        value = self.steps[0](images)
        for step, change in zip(self.steps[1:], self.between, strict=True):
            value = step(change(value))
        return self.last(value) if self.last is not BETWEEN[0] else value
