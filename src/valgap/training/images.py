"""Torch data sets over images and over stored activations. Both name their samples by path, as a recorder expects."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.data import Dataset

from valgap.engine import Rows
from valgap.engine.decoded import Pictures
from valgap.training.ranks import Ranks

# More reading processes than this wait for each other's disk.
MOST_WORKERS = 8
# Without gradients so many take less memory than a usual batch that is learned from, and less time than in more parts.
SCORED_AT_ONCE = 64


def usual_workers(device: torch.device, ranks: Ranks) -> int:
    """Processes that read images: a GPU is kept busy by every core but one; on a processor the network wants them all."""
    if device.type == "cpu":
        return 0
    return min(MOST_WORKERS, max(0, (os.cpu_count() or 1) // ranks.local_world - 1))


class ImageDataset(Dataset[tuple[torch.Tensor, int]]):
    """Images (3, H, W) float32 with class indices. ``class_to_idx`` is train's, for every split.

    Each image is decoded once, where the cache has room, and what ``transform`` gets is an RGB image.
    With a seed, what a random transform does to it depends on seed, epoch and index alone: not on how many processes read,
    nor on which of those that train together.
    """

    def __init__(
        self,
        pictures: Pictures,
        labels: npt.NDArray[Any],
        classes: Sequence[str],
        transform: Callable[..., Any],
        seed: int | None = None,
    ) -> None:
        self.pictures = pictures
        self.samples = [(str(p), int(y)) for p, y in zip(pictures.paths, labels, strict=True)]
        self.class_to_idx = {name: i for i, name in enumerate(classes)}
        self.transform = transform
        self.seed = seed
        # In memory that reading processes share: they live for longer than an epoch.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        """The epoch that is read; the loop sets it."""
        return int(self._epoch)

    @epoch.setter
    def epoch(self, value: int) -> None:
        self._epoch.fill_(value)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image, label = Image.fromarray(self.pictures[index]), self.samples[index][1]
        if self.seed is None:
            return self.transform(image), label
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.SeedSequence((self.seed, self.epoch, index)).generate_state(1, np.uint64)[0]) >> 1)
            return self.transform(image), label


class StoredDataset(Dataset[tuple[torch.Tensor, int]]):
    """Stored activations as flat rows (D,) float32 with class indices: a sample's view is drawn anew in each epoch.

    Flat, since they are no images: whoever looks at batches for their pixels should not mistake them for some.
    """

    def __init__(
        self, paths: Sequence[Path], labels: npt.NDArray[Any], classes: Sequence[str], views: Sequence[Rows], seed: int
    ) -> None:
        self.samples = [(str(p), int(y)) for p, y in zip(paths, labels, strict=True)]
        self.class_to_idx = {name: i for i, name in enumerate(classes)}
        self.views = list(views)
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        view = 0
        if len(self.views) > 1:
            view = int(np.random.default_rng((self.seed, self.epoch, index)).integers(len(self.views)))
        row = np.array(self.views[view][index], np.float32).reshape(-1)
        return torch.from_numpy(row), self.samples[index][1]
