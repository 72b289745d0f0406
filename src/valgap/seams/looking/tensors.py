"""The numbers of tensors: whether they can be read, and two that tell whether any of them has changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.parameter import is_lazy


def readable(tensor: torch.Tensor) -> bool:
    """Whether its numbers can be summed and copied: it has a shape and a place, and is neither sparse nor quantised."""
    return not is_lazy(tensor) and not tensor.is_meta and not tensor.is_quantized and tensor.layout == torch.strided


def sums_and_norms(tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """(sums, norms), each (T,) float64 on the CPU; of a tensor that processes share out, those of this process's part."""
    if not tensors:
        return torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
    # Of tensors that processes share out, this process's own part: the whole would make every process wait for all.
    own: list[Any] = [t.detach() for t in tensors]
    values: list[torch.Tensor] = [t.to_local() if hasattr(t, "to_local") else t for t in own]
    real = [v if v.is_floating_point() else v.double() for v in values]
    device = real[0].device
    sums = _in_double([v.sum() for v in real], device)
    norms = _in_double([torch.linalg.vector_norm(v) for v in real], device)
    both = torch.stack([sums, norms]).cpu()
    return both[0], both[1]


def _in_double(values: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
    """(T,) float64 of 0-d tensors; those of one kind are turned into it together."""
    if all(v.dtype == values[0].dtype and v.device == device for v in values):
        return torch.stack(list(values)).double()
    return torch.stack([v.double().to(device, non_blocking=True) for v in values])
