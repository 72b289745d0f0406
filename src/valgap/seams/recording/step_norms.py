"""Norms of gradients and updates at sampled optimizer steps, whole and by group of layers. Stays on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from valgap.seams.looking.tracked import TrackedModel

# Of so many numbers of a parameter, at least, the update is measured.
LOOKED_AT = 16_384
# Of so many parameters it is seen whether they move between steps, too.
WATCHED = 8


@dataclass
class StepNorms:
    """The norms of one sampled step; 0-d and (G,) tensors on the parameters' device."""

    grad: torch.Tensor
    group_grad: torch.Tensor | None
    update_ratio: torch.Tensor | None = None
    group_update_ratio: torch.Tensor | None = None
    outside_ratio: torch.Tensor | None = None  # known when the next step begins
    every_grad: torch.Tensor | None = None  # (P,) of each parameter, only until the step has been noted
    every_update: torch.Tensor | None = None


class StepMeter:
    """Measures one step at a time: ``before`` it, then ``after`` it."""

    def __init__(self) -> None:
        self._open: tuple[StepNorms, list[torch.Tensor], list[torch.Tensor], torch.Tensor | None, int] | None = None
        self._places: dict[tuple[int, int, int], torch.Tensor] = {}
        self._left: tuple[StepNorms, list[torch.Tensor], list[torch.Tensor], torch.Tensor] | None = None

    def forget(self) -> None:
        """The coming step is not measured."""
        self._open = None

    def before(self, optimizer: torch.optim.Optimizer, models: Sequence[TrackedModel]) -> None:
        """Take the gradients' norms, and a copy of the weights for the update's."""
        parameters = [p for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
        parameters = [p for p in parameters if not p.grad.is_sparse]
        if not parameters:
            return
        norms = _norms([p.grad for p in parameters])
        owner = None
        for model in models:
            if any(id(p) in model.position for p in parameters):
                model.mark_gradients(parameters, norms)
                owner = owner or model
        place = self._group_places(owner, parameters, norms.device) if owner is not None else None
        count = len(owner.layer_groups) if owner is not None else 0
        measured = StepNorms(norms.norm(), _grouped(norms, place, count), every_grad=norms)
        self._open = (measured, parameters, [_part(p).clone() for p in parameters], place, count)

    def after(self) -> StepNorms | None:
        """The norms of the step that has just been made; None where it was not measured."""
        if self._open is None:
            return None
        measured, parameters, old, place, count = self._open
        self._open = None
        scale = [(p.numel() / max(1, o.numel())) ** 0.5 for p, o in zip(parameters, old, strict=True)]
        change = _norms(torch._foreach_sub([_part(p) for p in parameters], old), scale)
        size = _norms(old, scale)
        measured.update_ratio = change.norm() / size.norm()
        measured.every_update = change
        moved, all_of_it = _grouped(change, place, count), _grouped(size, place, count)
        if moved is not None and all_of_it is not None:
            measured.group_update_ratio = moved / all_of_it
        apart = -(-len(parameters) // WATCHED)
        first = (len(parameters) - 1) % apart  # the last of them, a head's mostly, is one
        watched = parameters[first::apart]
        self._left = (measured, watched, [_part(p).clone() for p in watched], change[first::apart])
        return measured

    def outside(self) -> None:
        """Another step begins: how far the program has moved the weights itself, beside the step that was measured last.

        What it moved and moved back in between does not count: methods that look at a gradient elsewhere do so (SAM: Foret et
        al. 2021). What it set to zero is left out: masks of pruned weights do that.
        """
        if self._left is None:
            return
        measured, watched, left, inside = self._left
        self._left = None
        now = [_part(p) for p in watched]
        if any(a.shape != b.shape or a.device != b.device for a, b in zip(now, left, strict=True)):
            return
        scale = [(p.numel() / max(1, o.numel())) ** 0.5 for p, o in zip(watched, left, strict=True)]
        moved = _norms([(a - b) * (a != 0) for a, b in zip(now, left, strict=True)], scale)
        measured.outside_ratio = moved.norm() / inside.norm()

    def _group_places(self, model: TrackedModel, parameters: list[torch.Tensor], device: torch.device) -> torch.Tensor:
        """(P,) the group of each parameter, on its device; made once, since a copy to a device waits for it."""
        key = (model.id, len(model.tensors), hash(tuple(id(p) for p in parameters)))
        if key not in self._places:
            groups = [model.group_of[model.position[id(p)]] if id(p) in model.position else 0 for p in parameters]
            self._places[key] = torch.tensor(groups, device=device)
        return self._places[key]


def _part(parameter: torch.Tensor) -> torch.Tensor:
    """Numbers of a parameter at even distances, enough for the norm of all of them within a percent; copying all takes time."""
    tensor = parameter.detach()
    step = tensor.numel() // LOOKED_AT
    dense = tensor.is_contiguous() or (tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last))
    if step < 2 or not dense or type(tensor) is not torch.Tensor:
        return tensor
    while step % 2 == 0 or step % 3 == 0:  # not the same place of every kernel
        step += 1
    return tensor.as_strided((tensor.numel() // step,), (step,))


def _norms(tensors: Sequence[torch.Tensor], scale: list[float] | None = None) -> torch.Tensor:
    """(P,) float32 L2 norms, each times its scale, on the first tensor's device."""
    norms = torch._foreach_norm(list(tensors))
    norms = norms if scale is None else torch._foreach_mul(norms, scale)
    device = norms[0].device
    if all(n.dtype == torch.float32 and n.device == device for n in norms):
        return torch.stack(norms)
    return torch.stack([n.float().to(device, non_blocking=True) for n in norms])


def _grouped(norms: torch.Tensor, place: torch.Tensor | None, count: int) -> torch.Tensor | None:
    """(G,) norms of the groups; nan for a group of which nothing is there."""
    if place is None:
        return None
    zero = torch.zeros(count, device=norms.device)
    seen = zero.index_add(0, place, torch.ones_like(norms))
    return torch.where(seen > 0, zero.index_add(0, place, norms.square()).sqrt(), torch.nan)
