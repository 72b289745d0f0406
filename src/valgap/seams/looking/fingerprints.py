"""Fingerprints of what passes the seams in a few batches: by them two runs of a program are held side by side, bit for bit.

Everything stays on its device until a pass is written, no random number is drawn, and no tensor is kept.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from valgap.types import FEW_VALUES, QUANTITIES

if TYPE_CHECKING:
    from valgap.seams.looking.tracked import TrackedModel

# Which batches of each kind, learning or not, are taken: the first ones, then those whose number is a power of two.
FIRST = 8
WIDTH = 1024  # numbers in a row of the checksum
# Odd multipliers of a linear congruential generator (Knuth, MMIX): no two places count alike.
FACTOR, OFFSET = 6364136223846793005, 1442695040888963407
WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
ROUNDS = (torch.float16, torch.bfloat16)


class Chosen:
    """Counts batches, those that learn and the others each, and chooses those of which fingerprints are taken."""

    def __init__(self) -> None:
        self._counts = {True: 0, False: 0}

    def next(self, learning: bool) -> bool:
        """Whether the batch that begins is one of them."""
        number = self._counts[learning]
        self._counts[learning] += 1
        return number < FIRST or number & (number - 1) == 0


class Fingerprints:
    """Those of one pass, until it is written."""

    def __init__(self) -> None:
        self.batch: int | None = None  # the open batch, where it is one of those that are taken
        self._rows: list[tuple[int, int, bool, torch.Tensor, torch.Tensor]] = []

    def begin(self, batch: int | None, images: torch.Tensor) -> None:
        """A batch begins; ``None`` for one of which none are taken."""
        self.batch = batch
        if batch is not None:
            state = torch.get_rng_state()
            if torch.cuda.is_initialized():
                state = torch.cat([state, torch.cuda.get_rng_state()])
            self.add("random", state)
            self.add("input", images)

    def add(self, quantity: str, tensor: Any, batch: int | None = None) -> None:
        """Take the fingerprint of what this is in the open batch."""
        batch = self.batch if batch is None else batch
        if batch is None or not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided or not tensor.numel():
            return
        tensor = tensor.detach()
        row = (batch, QUANTITIES.index(quantity), tensor.dtype in ROUNDS, checksum(tensor), _numbers(tensor))
        self._rows.append(row)

    def statistics(self, model: TrackedModel, batch: int) -> None:
        """BatchNorm's running statistics as they are after this batch."""
        kept = [t for m in model.batchnorms for t in (m.running_mean, m.running_var) if t is not None]
        if kept:
            self.add("statistics", torch.cat([t.detach().reshape(-1).float() for t in kept]), batch)

    def take(self, pass_index: int) -> dict[str, Any] | None:
        """The body of the next ``traced`` line; None where there is nothing new. Here the device is waited for."""
        rows, self._rows = self._rows, []
        if not rows:
            return None
        numbers = torch.stack([r[4].cpu() for r in rows]).numpy()
        return {
            "pass": pass_index,
            "batch": np.array([r[0] for r in rows], np.int32),
            "quantity": np.array([r[1] for r in rows], np.int8),
            "half": np.array([r[2] for r in rows], np.int8),
            "checksum": np.array([int(r[3]) for r in rows], np.int64),
            "mean": numbers[:, 0],
            "norm": numbers[:, 1],
            "few": numbers[:, 2:],
        }


def checksum(tensor: torch.Tensor) -> torch.Tensor:
    """0-d int64 on the tensor's device: equal shapes with equal bits in equal order give equal numbers, on every machine.

    Every number is weighted by its place, in arithmetic modulo 2^64.
    """
    flat = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    flat = flat.contiguous().reshape(-1)
    if flat.dtype == torch.bool:
        flat = flat.view(torch.uint8)
    rest = flat.new_zeros(0)
    together = 8 // flat.element_size()
    if len(flat) > WIDTH * together:  # 8 bytes at once are added up twenty times as fast
        whole = len(flat) // (WIDTH * together) * WIDTH * together
        flat, rest = flat[:whole], flat[whole:]
        if flat.storage_offset() % together:
            flat = flat.clone()
        body = flat.view(torch.int64).view(-1, WIDTH)
        total = (body.sum(0) * _weights(WIDTH, flat.device)).sum() + 3 * (body.sum(1) * _weights(len(body), flat.device)).sum()
    else:
        rest, total = flat, torch.zeros((), dtype=torch.int64, device=flat.device)
    if len(rest):
        bits = rest.view(WHOLE[rest.element_size()]).to(torch.int64)
        total = total + 5 * (bits * _weights(len(rest), rest.device)).sum()
    return total + tensor.numel()


@functools.lru_cache(maxsize=64)
def _weights(count: int, device: torch.device) -> torch.Tensor:
    """(count,) int64, odd, the same in every process."""
    return (torch.arange(1, count + 1, dtype=torch.int64, device=device) * FACTOR + OFFSET) | 1


def _numbers(tensor: torch.Tensor) -> torch.Tensor:
    """(2 + FEW_VALUES,) float32: mean, norm, and numbers of it at even distances; nan where it has fewer."""
    flat = tensor.reshape(-1)
    flat = flat.float() if not flat.is_complex() else torch.view_as_real(flat).reshape(-1).float()
    places = _places(len(flat), flat.device)
    out = torch.full((2 + FEW_VALUES,), torch.nan, device=flat.device)
    out[0], out[1] = flat.mean(), flat.norm()
    out[2 : 2 + len(places)] = flat[places]
    return out


@functools.lru_cache(maxsize=64)
def _places(count: int, device: torch.device) -> torch.Tensor:
    """Places at even distances, at most FEW_VALUES of them."""
    n = min(count, FEW_VALUES)
    return torch.tensor([i * count // n for i in range(n)], dtype=torch.int64, device=device)
