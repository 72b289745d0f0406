"""A model, divided into what is frozen and what is trained behind it, as its parameters say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import nn


@dataclass
class Parts:
    """A divided model: modules of the frozen part, modules that are trained, and the tensors that the features depend on."""

    frozen: dict[int, int] = field(default_factory=dict)  # id of a module -> its number
    trained: set[int] = field(default_factory=set)
    tensors: list[torch.Tensor] = field(default_factory=list)
    # Buffers of modules in training mode, which a call may move (the statistics of BatchNorm).
    moving: list[torch.Tensor] = field(default_factory=list)
    modules: list[nn.Module] = field(default_factory=list)

    def hold(self, module: nn.Module) -> None:
        """The features depend on a module's own tensors."""
        self.tensors += [t for t in module._parameters.values() if t is not None]
        buffers = [b for b in module._buffers.values() if b is not None]
        (self.moving if module.training else self.tensors).extend(buffers)


def divide(module: nn.Module, parts: Parts, known: dict[int, tuple[bool, bool]] | None = None) -> None:
    """Sort the modules below ``module`` (and its own tensors) into frozen and trained."""
    known = {} if known is None else known
    own = [t for t in module._parameters.values() if t is not None]
    if any(p.requires_grad for p in own):
        parts.trained.add(id(module))
        return
    parts.hold(module)
    for child in dict.fromkeys(c for c in module._modules.values() if c is not None):
        some, others = _learns(child, known)
        if some and not others:
            parts.trained.add(id(child))
        elif some:
            divide(child, parts, known)
        elif id(child) not in parts.frozen:
            parts.frozen[id(child)] = len(parts.frozen)
            parts.modules.append(child)
            for part in walk(child):
                parts.hold(part)


def _learns(module: nn.Module, known: dict[int, tuple[bool, bool]]) -> tuple[bool, bool]:
    """Whether (some, others) of the parameters of a module and below it are trained, and are not."""
    if id(module) not in known:
        learns = [p.requires_grad for p in module._parameters.values() if p is not None]
        below = [_learns(c, known) for c in module._modules.values() if c is not None]
        known[id(module)] = (any(learns) or any(s for s, _ in below), not all(learns) or any(o for _, o in below))
    return known[id(module)]


def walk(module: nn.Module) -> Iterator[nn.Module]:
    """``module.modules()``, which names all of them and so takes ten times as long."""
    seen: set[int] = set()
    waiting = [module]
    while waiting:
        one = waiting.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [c for c in reversed(one._modules.values()) if c is not None]


def modes_of(module: nn.Module) -> bytes:
    """Of every module below (and of itself) whether it is in training mode."""
    return bytes(m.training for m in walk(module))
