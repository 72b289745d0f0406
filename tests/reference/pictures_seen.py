"""Records of runs on real files, with what the network saw of them made by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.checks.cases import dataset, healthy, samples
from valgap.features import Measurements, images_of_run
from valgap.seams.looking.inputs import quantized
from valgap.types import KeptInputs, RunRecord

KINDS = ("across", "down", "wedge", "ring")  # two of them are each other's turn
SIDE = 48
# How the network sees one picture (H, W, 3) of values 0..1, by the place of the picture in the pass.
Seen = Callable[[Any, int], Any]


def drawn(kind: str, seed: int) -> Image.Image:
    """A shape that looks otherwise when it is turned, of a colour and place of its own."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    a, b = rng.uniform(0.35, 0.65, 2)
    shape = {
        "across": (np.sin(40 * y + rng.uniform(0, 3)) > 0) & (abs(x - a) < 0.3),
        "down": (np.sin(40 * x + rng.uniform(0, 3)) > 0) & (abs(y - b) < 0.3),
        "wedge": (y > b - 0.25) & (abs(x - a) < 0.6 * (y - b + 0.25)) & (y < b + 0.3),
        "ring": abs(np.hypot(x - a, y - b) - 0.25) < 0.06,
    }[kind]
    ground, colour = rng.uniform(0, 0.4, 3), rng.uniform(0.6, 1, 3)
    values = np.where(shape[..., None], colour, ground) + 0.15 * y[..., None] + rng.normal(0, 0.02, (SIDE, SIDE, 3))
    return Image.fromarray((255 * np.clip(values, 0, 1)).astype(np.uint8))


def as_it_is(values: Any, place: int) -> Any:
    """The picture itself."""
    return values


def run_on(root: Path, train: Seen = as_it_is, val: Seen = as_it_is, each: int = 12) -> tuple[RunRecord, Measurements]:
    """A record of a training on ``each`` pictures a kind and side, as the network saw them, with their files."""
    names: list[str] = []
    for split in ("train", "val"):
        for k, kind in enumerate(KINDS):
            (root / split / kind).mkdir(parents=True, exist_ok=True)
            for i in range(each):
                name = f"{split}/{kind}/{i}.png"
                drawn(kind, 1000 * k + i + 500 * (split == "val")).save(root / name)
                names.append(name)
    half = len(names) // 2
    targets = np.repeat(np.arange(len(KINDS)), each).astype(np.int32)
    base = healthy().run
    passes, kept = [], []
    for one in base.passes:
        first, see = (0, train) if one.phase == "train" else (half, val)
        ids = np.arange(first, first + half, dtype=np.int32)
        table = samples(ids, 0.8)
        right = table.prediction == table.target
        table = replace(table, target=targets, prediction=np.where(right, targets, (targets + 1) % 4).astype(np.int32))
        passes.append(replace(one, samples=table))
        values = np.stack([see(np.asarray(Image.open(root / names[i]), float) / 255, n) for n, i in enumerate(ids)])
        small = quantized(_tensor(((values - 0.45) / 0.25).transpose(0, 3, 1, 2)))
        kept.append(KeptInputs(one.index, ids, small["images"], small["low"], small["high"]))
    ids = np.arange(half)
    map_ = {kind: i for i, kind in enumerate(KINDS)}
    sets = {n: dataset(n, ids + n * half, targets=targets, class_to_idx=map_) for n in (0, 1)}
    run = replace(base, passes=tuple(passes), kept=tuple(kept), sample_names=tuple(names), datasets=sets)
    run = replace(run, header={**base.header, "cwd": str(root)})
    images = images_of_run(run, 10_000)
    assert images is not None
    return run, images


def _tensor(values: Any) -> Any:
    import torch

    return torch.from_numpy(values)
