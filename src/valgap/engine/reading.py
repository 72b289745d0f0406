"""Images as the network's square of pixels, read fast: JPEG at reduced scale, only the crop resized."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from valgap.data.images import read_rgb
from valgap.models.preprocessing import Preprocessing

View = Literal["plain", "flipped"]
# A JPEG is decoded at 1/2, 1/4 or 1/8 scale while this many times the wanted side remains. tests/engine/test_reading.py
# measures what that changes; at 1 (no reserve) a second, sharp reduction would follow and differ visibly.
RESERVE = 2.0


def read_pixels(path: str | Path, preprocessing: Preprocessing, view: View = "plain") -> npt.NDArray[np.uint8]:
    """(size, size, 3): the pixels that the evaluation transform would show the network, before normalisation.

    ``flipped`` mirrors left and right. Raises DataError for a file that is no readable image.
    """
    image = read_rgb(path, min_side=int(preprocessing.short_side * RESERVE))
    pixels = np.asarray(preprocessing.eval_square(image))
    return np.ascontiguousarray(pixels[:, ::-1]) if view == "flipped" else pixels


def read_batches(
    paths: Sequence[str | Path], preprocessing: Preprocessing, view: View, batch: int, threads: int
) -> Iterator[npt.NDArray[np.uint8]]:
    """(B, size, size, 3) pixel batches in order, read ahead by threads (Pillow works outside Python's lock)."""
    with ThreadPoolExecutor(threads) as pool:
        ahead = iter(paths)
        waiting = [pool.submit(read_pixels, p, preprocessing, view) for p in islice(ahead, 3 * batch)]
        try:
            while waiting:
                ready = [f.result() for f in waiting[:batch]]
                waiting = waiting[batch:] + [pool.submit(read_pixels, p, preprocessing, view) for p in islice(ahead, batch)]
                yield np.stack(ready)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
