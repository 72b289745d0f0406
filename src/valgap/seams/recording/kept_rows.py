"""Rows of numbers that a model is given, and those that one makes of images: by them features are told to be of their images.

A program may make its features once and train a head on them. The head's rows then come from tensors, often standardised and
in another order; that they are the features of certain images is seen when the record is read (features/feature_rows.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

MOST_ROWS = 4_096
COLUMNS = 64  # of each row, evenly spaced: enough to tell it from thousands of others
LEAST_COLUMNS = 32  # fewer are answers, not features


class RowKeeper:
    """Gathers rows of one pass, as they come, until there are enough."""

    def __init__(self) -> None:
        self.made = False  # of images, by the model; else the model was given them
        self._parts: list[torch.Tensor] = []
        self._count = 0
        self._samples: list[Any] = []
        self._named = 0
        self._width = 0

    def add(self, rows: torch.Tensor | None) -> None:
        """The next batch (N, D); None, and what is no row of features, ends it: no later one would have its place."""
        fits = rows is not None and rows.ndim == 2 and rows.is_floating_point() and rows.shape[1] >= LEAST_COLUMNS
        if rows is None or not fits or self._width not in (0, rows.shape[1]):
            self._width, self._parts, self._count = -1, [], 0
            return
        self._width = int(rows.shape[1])
        few = rows[: MOST_ROWS - self._count].detach()
        if len(few):
            self._parts.append(few[:, :: max(1, self._width // COLUMNS)][:, :COLUMNS].to(torch.float16))
            self._count += len(few)

    def name(self, samples: Any) -> None:
        """The ids of the samples that follow those named so far, (n,); -1 unknown."""
        if self._named < self._count:
            self._samples.append(np.asarray(samples, np.int32))
            self._named += len(samples)

    def result(self) -> dict[str, Any] | None:
        """The fields of KeptRows but the pass; None where there are no rows, or not each has its place."""
        if not self._count or self._named < self._count:
            return None
        values = torch.cat(self._parts).cpu().numpy()
        return {"sample": np.concatenate(self._samples)[: self._count], "values": values, "width": self._width, "made": self.made}
