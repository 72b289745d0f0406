"""What works inside the outermost call of a model: the modules that are given the images themselves, and all that return."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from valgap.seams.looking.batches import tensors_in
from valgap.seams.looking.routes import Given, given


class InnerCalls:
    """Gathers them while a model's first call is looked into."""

    def __init__(self) -> None:
        self._looked_into: weakref.WeakSet[Any] = weakref.WeakSet()
        self._seen: list[tuple[Given, torch.Tensor, list[torch.Tensor]]] = []  # how it was called, its images, its outputs
        self._at_work: dict[int, Any] = {}  # by id(): each module that returned

    def first_of(self, module: Any) -> bool:
        """Whether this module's call was not looked into before; from now on it was."""
        new = module not in self._looked_into
        self._looked_into.add(module)
        return new

    def clear(self) -> None:
        """Another outermost call begins."""
        self._seen, self._at_work = [], {}

    def returned(
        self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any, images: torch.Tensor | None
    ) -> None:
        """A module inside the open call has returned: kept if it was given ``images``, those of the open call, themselves."""
        self._at_work[id(module)] = module
        given_to = [t for _, t in tensors_in((args, kwargs)) if t.ndim >= 2]
        if images is None:
            images = self._seen[0][1] if self._seen else next((t for t in given_to if t.ndim >= 4), None)
        if images is not None and any(t is images for t in given_to):
            own = given(module, args, dict(kwargs), images, module)
            self._seen.append((own, images, [t for _, t in tensors_in(output)]))

    def take(self) -> tuple[list[Any], Sequence[tuple[Given, Sequence[torch.Tensor]]]]:
        """(the modules at work, how each that was given the images was called and what it returned); they are held no longer."""
        working, seen = list(self._at_work.values()), [(own, outputs) for own, _, outputs in self._seen]
        self.clear()
        return working, seen


def core_of(seen: Sequence[tuple[Given, Sequence[torch.Tensor]]], scores: torch.Tensor | None) -> Given | None:
    """The innermost call that returned these scores; None where none did."""
    return next((own for own, outputs in seen if scores is not None and any(t is scores for t in outputs)), None)
