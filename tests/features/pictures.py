"""Small synthetic photographs: two classes that any backbone tells apart, each image different."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter


def picture(kind: str, seed: int, side: int = 64) -> npt.NDArray[np.uint8]:
    """(side, side, 3): coloured stripes or soft blobs, with noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    if kind == "stripes":
        angle, rate = rng.uniform(0, 3.14), rng.uniform(6, 10)
        grey = np.sin(6.28 * rate * (x * np.cos(angle) + y * np.sin(angle)) + rng.uniform(0, 6))
    else:
        grey = sum(np.exp(-((x - a) ** 2 + (y - b) ** 2) / 0.02) for a, b in rng.uniform(0, 1, (6, 2))) - 0.5
    colour = rng.uniform(0.3, 1.0, 3)
    values = 128 + 90 * grey[..., None] * colour + rng.normal(0, 8, (side, side, 3))
    return np.clip(values, 0, 255).astype(np.uint8)


def photo_folder(root: Path, train: int, val: int, side: int = 64) -> Path:
    """root/{train,val}/{blobs,stripes}/N.png with so many images a class."""
    seed = 0
    for split, count in (("train", train), ("val", val)):
        for kind in ("blobs", "stripes"):
            (root / split / kind).mkdir(parents=True)
            for number in range(count):
                seed += 1
                Image.fromarray(picture(kind, seed, side)).save(root / split / kind / f"{number}.png")
    return root


def scene(seed: int, side: int = 256) -> Image.Image:
    """A picture with structure at all scales, like a photograph's: smoothed noise summed over octaves."""
    rng = np.random.default_rng(seed)
    total = np.zeros((side, side, 3))
    for octave in range(2, 7):
        cells = 2**octave
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        total += np.asarray(noise.resize((side, side), Image.Resampling.BICUBIC), float) / 2 ** (octave * 0.5)
    total = (total - total.min()) / np.ptp(total) * 255
    return Image.fromarray(total.astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.5))


def bright_sides(folder: Path, counts: dict[str, int]) -> None:
    """``folder/SPLIT/CLASS/*.png``, so many of each class of a split: bright above (0) or at the left (1)."""
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        for k in (0, 1):
            (folder / split / str(k)).mkdir(parents=True)
            for i in range(count):
                values = rng.uniform(0, 90, (24, 24, 3))
                values[(slice(None), slice(8)) if k else (slice(8),)] += 140
                Image.fromarray(values.astype(np.uint8)).save(folder / split / str(k) / f"{i}.png")
