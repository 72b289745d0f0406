"""Several processes that train one model, started by `torchrun -m valgap train ...`. Alone, every function here is trivial.

torch.distributed itself, not Fabric or Accelerate: those would own device, precision and loaders, for which this program has
rules of its own (parts of a batch that are exact, a resumed run with the same bits); what is left for them are the five
collectives below.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import distributed
from torch.utils.data import BatchSampler, Sampler

Made = TypeVar("Made")
# The others wait while the first process decides what learns, which may take as long as a training.
PATIENCE = timedelta(hours=2)


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together. ``local`` counts within one host, which shares a feature cache."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that decides, prints and writes."""
        return self.rank == 0

    def device(self) -> torch.device:
        """The process's own GPU, or what the machine has."""
        if torch.cuda.is_available():
            return torch.device("cuda", self.local_rank % torch.cuda.device_count())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")

    def same(self, make: Callable[[], Made]) -> Made:
        """What the first process makes, in all of them; what it raises, they all raise."""
        if self.world == 1:
            return make()
        told: list[Any] = [None, None]
        if self.first:
            try:
                told[0] = make()
            except Exception as error:
                told[1] = error
        distributed.broadcast_object_list(told, 0)
        if told[1] is not None:
            raise told[1]
        made: Made = told[0]
        return made

    def wait(self) -> None:
        """Until all have come so far."""
        if self.world > 1:
            distributed.barrier()

    def spread(self, tensors: Iterable[torch.Tensor]) -> None:
        """The first process's values into everybody's tensors."""
        if self.world > 1:
            for tensor in tensors:
                value = tensor.detach().contiguous()  # what is in channels-last order is not
                distributed.broadcast(value, 0)
                tensor.detach().copy_(value)

    def add_gradients(self, parameters: Iterable[torch.Tensor]) -> None:
        """Each gradient becomes the sum over all processes; one that is missing counts as zero."""
        if self.world == 1:
            return
        learned = list(parameters)
        parts = [(p.grad if p.grad is not None else torch.zeros_like(p)).reshape(-1) for p in learned]
        flat = torch.cat(parts)
        distributed.all_reduce(flat)
        for parameter, part in zip(learned, flat.split([len(p) for p in parts]), strict=True):
            parameter.grad = part.reshape(parameter.shape).clone()

    def total(self, value: float, device: torch.device) -> float:
        """The sum over all processes."""
        if self.world == 1:
            return value
        number = torch.tensor([value], dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
        distributed.all_reduce(number)
        return float(number)

    def part(self, count: int) -> Sequence[int]:
        """This process's share of so many items."""
        return range(self.rank, count, self.world)

    def whole(self, rows: npt.NDArray[Any] | None, count: int) -> npt.NDArray[Any]:
        """(count, ...) rows of all, in order, from everybody's `part`; None where a process had nothing to do."""
        if self.world == 1:
            assert rows is not None
            return rows
        told: list[npt.NDArray[Any] | None] = [None] * self.world
        distributed.all_gather_object(told, rows)
        known = next(r for r in told if r is not None)
        out = np.empty((count, *known.shape[1:]), known.dtype)
        for rank, part in enumerate(told):
            if part is not None:
                out[rank :: self.world] = part
        return out


ALONE = Ranks()


class SharedBatches(Sampler[list[int]]):
    """The batches of one process cut into a part for each: together they are the very same batches.

    A part is never empty, since a loader cannot make a batch of nothing: see `own_share` for what of it counts.
    """

    def __init__(self, order: Sampler[int], batch_size: int, ranks: Ranks) -> None:
        self.batches, self.ranks = BatchSampler(order, batch_size, drop_last=False), ranks

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            yield batch[self.ranks.rank :: self.ranks.world] or batch[:1]


def own_share(whole: int, ranks: Ranks) -> int:
    """How many images of a batch of so many belong to this process."""
    return len(range(ranks.rank, whole, ranks.world))


@contextmanager
def joined() -> Iterator[Ranks]:
    """This process's place, for as long as the processes train together; ALONE where there is one process.

    A program that already joined them (by ``torch.distributed.init_process_group``) keeps its group.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    already = distributed.is_available() and distributed.is_initialized()
    if world == 1 and not already:
        yield ALONE
        return
    if not already:
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    ranks = Ranks(
        distributed.get_rank(),
        distributed.get_world_size(),
        int(os.environ.get("LOCAL_RANK", "0")),
        int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
    )
    if ranks.device().type == "cuda":
        torch.cuda.set_device(ranks.device())
    try:
        yield ranks
    finally:
        if not already:
            distributed.destroy_process_group()
