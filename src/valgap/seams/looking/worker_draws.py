"""Whether the workers of a loader vary one image each in their own way, or all alike."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from valgap.seams.looking import datasets as ds
from valgap.seams.looking.batches import find_images

WORKERS = 2
# A mirror image is drawn or not: twelve draws in a row agree by chance once in 4,000 times.
DRAWS = 12


def worker_numbers(loader: Any) -> dict[str, float] | str:
    """How far two workers, and the same worker in the next epoch, draw the same variants of one image; or why that is unknown.

    The loader's own ``worker_init_fn`` and start method are used; every epoch gets a base seed of its own, as in training.
    """
    if getattr(loader, "num_workers", 0) < WORKERS:
        return "one process reads the images"
    if isinstance(loader.dataset, IterableDataset) or ds.safe_len(loader.dataset) < 1:
        return "a stream cannot be read again from its start, sample by sample"
    first = _drawn(loader, 0)
    second = _drawn(loader, 1)
    if first is None or second is None:
        return "the loader's batches hold no images"
    one, other = first
    return {
        "worker_variants": float(len({tuple(v.flatten().tolist()) for v in one})),
        "worker_same": _equal(one, other),
        "worker_same_next_epoch": _equal(one, second[0]),
        "worker_draws": float(DRAWS),
    }


def _drawn(loader: Any, epoch: int) -> tuple[list[torch.Tensor], list[torch.Tensor]] | None:
    """What each of two workers makes of the first image, ``DRAWS`` times, as a few sums of the tensor."""
    batches = DataLoader(
        loader.dataset,
        batch_size=1,
        sampler=[0] * (WORKERS * DRAWS),
        collate_fn=loader.collate_fn,
        num_workers=WORKERS,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=torch.Generator().manual_seed(epoch),
    )
    drawn: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for number, batch in enumerate(batches):  # in turn: worker 0, worker 1, worker 0, ...
        images = find_images(batch)
        if images is None:
            return None
        rows = images[0].detach().double().flatten()
        places = torch.arange(1, len(rows) + 1, dtype=torch.float64)
        drawn[number % WORKERS].append(torch.stack([rows.sum(), (rows * places).mean(), (rows * places.cos()).sum()]))
    return drawn


def _equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    """Share of the draws that are equal, place by place."""
    return sum(bool(torch.equal(a, b)) for a, b in zip(one, other, strict=True)) / len(one)
