"""A torch data set over an ImageTable's images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from valgap.data import read_rgb


class ImageDataset(Dataset[tuple[torch.Tensor, int]]):
    """Images (3, H, W) float32 with class indices. ``class_to_idx`` is train's, for every split."""

    def __init__(
        self, paths: Sequence[Path], labels: npt.NDArray[Any], classes: Sequence[str], transform: Callable[..., Any]
    ) -> None:
        self.samples = [(str(p), int(y)) for p, y in zip(paths, labels, strict=True)]
        self.class_to_idx = {name: i for i, name in enumerate(classes)}
        self.transform = transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, label = self.samples[index]
        return self.transform(read_rgb(path)), label
