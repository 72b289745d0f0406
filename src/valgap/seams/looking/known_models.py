"""Which model a called module is, or is a part of."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection
from typing import Any

from torch.nn.parameter import is_lazy

from valgap.seams.looking.routes import owner_of
from valgap.seams.looking.tracked import TrackedModel, unwrap

# Models of earlier folds must not be kept alive by us.
MOST, NEWEST = 4, 2


class ByModule:
    """What is known of modules, as long as they live; by identity, since modules may compare and hash as they like."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Any], TrackedModel]] = {}

    def get(self, module: Any) -> TrackedModel | None:
        """The model of a module."""
        reference, model = self._known.get(id(module), (None, None))
        return model if reference is not None and reference() is module else None

    def put(self, module: Any, model: TrackedModel) -> None:
        """Know this of a module from now on."""
        self._known[id(module)] = weakref.ref(module), model

    def move(self, old: TrackedModel, new: TrackedModel | None) -> None:
        """All modules of one model belong to another one, or to none; what is said of dead ones is dropped."""
        moved = {k: (ref, new if model is old else model) for k, (ref, model) in self._known.items() if ref() is not None}
        self._known = {k: (ref, model) for k, (ref, model) in moved.items() if model is not None}


class KnownModels:
    """The models that were seen, the newest last."""

    def __init__(self) -> None:
        self.all: list[TrackedModel] = []
        self._count = 0
        self._of_module = ByModule()  # by called module

    def of(self, module: Any, in_use: Callable[[], Collection[int]]) -> TrackedModel:
        """The model of a module that is called; models whose ids are ``in_use`` are not forgotten for a new one."""
        known = self._of_module.get(module)
        if known is None or not any(known is m for m in self.all):
            inner = unwrap(module)
            known = next((m for m in self.all if m.contains(inner) or m.shares(inner)), None)
        if known is None:
            return self._new(module, in_use())
        self._of_module.put(module, known)
        if known.is_part_of(module):  # a part was tried out before the whole was built
            known.widen(module)
        return known

    def is_unfinished(self, module: Any) -> bool:
        """Whether this call of a new module is what gives its lazy parameters their shapes: no tensor of it can be read yet."""
        return self._of_module.get(module) is None and any(is_lazy(p) for p in module.parameters())

    def _new(self, module: Any, in_use: Collection[int]) -> TrackedModel:
        model = TrackedModel(self._count, module)
        self._count += 1
        self.all.append(model)
        self._of_module.put(module, model)
        idle = [m for m in self.all[:-NEWEST] if m.id not in in_use]
        for old in idle[: max(0, len(self.all) - MOST)]:
            self.all.remove(old)
            self._of_module.move(old, None)
        return model

    def joined(self, model: TrackedModel, module: Any, in_use: Collection[int]) -> TrackedModel:
        """The model that both are parts of; where each was known already, the one that has been trained."""
        other = next((m for m in self.all if m is not model and m.shares(module)), None)
        owner = owner_of(module)
        if other is not None and other.steps and not model.steps:
            for part in reversed(model.parts):
                other.join(part, owner, ahead=True)
            model, other = other, model
        else:
            for part in other.parts if other is not None else [module]:
                model.join(part, owner)
        if other is not None:
            model.inherit(other)
            if other.id not in in_use:
                self.all.remove(other)
        if other is not None:
            self._of_module.move(other, model)
        self._of_module.put(module, model)
        return model

    def is_known_as(self, module: Any, model: TrackedModel) -> None:
        """A part of this model stands for it from now on."""
        self._of_module.put(module, model)
