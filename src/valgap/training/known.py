"""Whether an image shows what training images show: how near what goes into the head lies to theirs.

Source: Sun et al. 2022, "Out-of-Distribution Detection with Deep Nearest Neighbors", section 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import nn

from valgap.errors import RecordError

FILE = "known.safetensors"
NEIGHBOURS = 5
# Of so many training images at most the features are kept; so many numbers are compared at a time.
MOST, AT_ONCE = 2_000, 50_000_000
# So many of the training images themselves lie farther from the others than what is taken for known.
LEFT_OUT = 0.05
Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Known:
    """Directions of training images (K, D), length 1, and the least nearness of what they show."""

    directions: Array
    least: float

    def nearness(self, features: Array) -> Array:
        """(N,) mean cosine of features (N, D) to the nearest training images, -1..1."""
        return nearest(directions_of(features), self.directions, NEIGHBOURS)

    def write(self, folder: Path) -> None:
        """Keep it beside a checkpoint."""
        body = {"directions": self.directions.astype(np.float16), "least": np.array([self.least])}
        part = folder / f"{FILE}.part"
        save_file(body, str(part))
        part.replace(folder / FILE)

    @classmethod
    def read(cls, folder: Path) -> Known:
        """What `write` kept. Raises RecordError where there is none."""
        try:
            body = load_file(str(folder / FILE))
            directions, least = body["directions"].astype(np.float32), float(body["least"][0])
            if directions.ndim != 2 or not len(directions) or not np.isfinite(directions).all():
                raise ValueError("no directions")
        except FileNotFoundError as error:
            raise RecordError(f"{folder} does not say what its training images look like: train again to have it") from error
        except (OSError, SafetensorError, KeyError, ValueError, IndexError) as error:
            raise RecordError(f"{folder / FILE} cannot be read ({type(error).__name__}: {error})") from error
        return cls(directions, least)


def known_of(features: Array) -> Known | None:
    """What these training images show, by their features (K, D); None for too few to compare."""
    directions = directions_of(features)
    if len(directions) < 2 * NEIGHBOURS:
        return None
    # Each image is its own nearest.
    near = nearest(directions, directions, NEIGHBOURS + 1)
    others = (near * (NEIGHBOURS + 1) - 1) / NEIGHBOURS
    return Known(directions, float(np.quantile(others, LEFT_OUT)))


def directions_of(features: Array) -> Array:
    """(N, D) features of length 1."""
    return np.asarray(features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12), np.float32)


def nearest(asked: Array, known: Array, count: int) -> Array:
    """(N,) mean cosine of directions (N, D) to the nearest ones of (K, D)."""
    rows = max(1, AT_ONCE // max(1, len(known)))
    count = min(count, len(known))
    parts = [np.partition(asked[i : i + rows] @ known.T, -count, axis=1)[:, -count:] for i in range(0, len(asked), rows)]
    return np.concatenate([p.mean(1) for p in parts]) if parts else np.zeros(0, np.float32)


@contextmanager
def given_to(head: nn.Module, wanted: npt.NDArray[np.bool_] | None = None) -> Iterator[list[Array]]:
    """What goes into the head meanwhile, in order: the rows that are ``wanted`` (N,), or all."""
    found: list[Array] = []
    place = 0

    def note(module: nn.Module, given: tuple[Any, ...]) -> None:
        nonlocal place
        rows = given[0].detach()
        if wanted is not None:
            keep = wanted[place : place + len(rows)]
            place += len(rows)
            rows = rows[torch.from_numpy(np.flatnonzero(keep)).to(rows.device)]
        found.append(rows.float().cpu().numpy())

    hook = head.register_forward_pre_hook(note)
    try:
        yield found
    finally:
        hook.remove()
