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


class KnownModels:
    """The models that were seen, the newest last."""

    def __init__(self) -> None:
        self.all: list[TrackedModel] = []
        self._count = 0
        self._of_module: weakref.WeakKeyDictionary[Any, TrackedModel] = weakref.WeakKeyDictionary()  # by called module

    def of(self, module: Any, in_use: Callable[[], Collection[int]]) -> TrackedModel:
        """The model of a module that is called; models whose ids are ``in_use`` are not forgotten for a new one."""
        known = self._of_module.get(module)
        if known is None or not any(known is m for m in self.all):
            inner = unwrap(module)
            known = next((m for m in self.all if m.contains(inner) or m.shares(inner)), None)
        if known is None:
            return self._new(module, in_use())
        self._of_module[module] = known
        if known.is_part_of(module):  # a part was tried out before the whole was built
            known.widen(module)
        return known

    def is_unfinished(self, module: Any) -> bool:
        """Whether this call of a new module is what gives its lazy parameters their shapes: no tensor of it can be read yet."""
        return module not in self._of_module and any(is_lazy(p) for p in module.parameters())

    def _new(self, module: Any, in_use: Collection[int]) -> TrackedModel:
        model = TrackedModel(self._count, module)
        self._count += 1
        self.all.append(model)
        self._of_module[module] = model
        idle = [m for m in self.all[:-NEWEST] if m.id not in in_use]
        for old in idle[: max(0, len(self.all) - MOST)]:
            self.all.remove(old)
            for module_of_old in [m for m, of in self._of_module.items() if of is old]:
                del self._of_module[module_of_old]
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
        for known in [m for m, of in self._of_module.items() if of is other]:
            self._of_module[known] = model
        self._of_module[module] = model
        return model

    def is_known_as(self, module: Any, model: TrackedModel) -> None:
        """A part of this model stands for it from now on."""
        self._of_module[module] = model
