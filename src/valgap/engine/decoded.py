"""Images that are read in every epoch: decoded and reduced once, then read as plain pixels.

A photograph of twelve megapixels takes a hundred milliseconds to decode and is then reduced to a few hundred pixels: what is
left of it lies in the cache, one file for an image, by the content of its file. Each ends with a checksum: what was torn is
made anew.
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from valgap.data.images import read_rgb
from valgap.engine.reading import RESERVE
from valgap.engine.store import DECODED, SUM_BYTES, FeatureStore, file_digest
from valgap.models.preprocessing import PIL_MODES, Preprocessing

Pixels = npt.NDArray[np.uint8]
# Most photographs are no wider than one and a half times their height.
ASPECT = 1.5


class Pictures:
    """RGB pixels (H, W, 3) by position. Each image is decoded once, as long as the cache has room for all of them."""

    def __init__(
        self, paths: Sequence[Path], decode: Callable[[Path], Pixels], key: str, row_bytes: float, store: FeatureStore | None
    ) -> None:
        """``key`` stands for what ``decode`` does; ``row_bytes`` is about what an image will take."""
        self.paths, self.decode = list(paths), decode
        store = store or FeatureStore()
        space = store.space(f"decoded-{key}", f"decoded images {key}")
        self.files = [space.folder / f"{file_digest(p).hex()}{DECODED}" for p in self.paths]
        missing = len({f for f in self.files if not f.exists()})
        self.keeps = store.make_room(round(missing * row_bytes), space)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Pixels:
        """Raises DataError for a file that is no readable image."""
        try:
            kept: Pixels = _unpacked(self.files[index].read_bytes())
        except (OSError, ValueError, EOFError):  # not kept yet, or damaged
            kept = self.decode(self.paths[index])
            self._keep(self.files[index], kept)
        return kept

    def _keep(self, file: Path, pixels: Pixels) -> None:
        if not self.keeps:
            return
        part = file.with_suffix(f".{os.getpid()}")
        try:
            part.write_bytes(_packed(pixels))
            part.replace(file)
        except OSError:  # full or read-only after all: decoded again in each epoch
            self.keeps = False
            part.unlink(missing_ok=True)


def _packed(pixels: Pixels) -> bytes:
    stream = io.BytesIO()
    np.save(stream, pixels)
    body = stream.getvalue()
    return body + zlib.crc32(body).to_bytes(SUM_BYTES, "little")


def _unpacked(data: bytes) -> Pixels:
    """Raises ValueError or EOFError where it is not what was packed."""
    body, told = data[:-SUM_BYTES], data[-SUM_BYTES:]
    if zlib.crc32(body).to_bytes(SUM_BYTES, "little") != told:
        raise ValueError("torn")
    found: Pixels = np.load(io.BytesIO(body))
    return found


def reduced(
    paths: Sequence[Path], preprocessing: Preprocessing, crop_share: float, store: FeatureStore | None = None
) -> Pictures:
    """Whole images, no larger than needed: a square crop of ``crop_share`` (0..1) still has the size that the network sees.

    At 1 the evaluation transform finds its shorter side in place and only crops.
    """
    side = max(preprocessing.short_side, round(preprocessing.size / crop_share**0.5))
    mode = preprocessing.interpolation
    return Pictures(paths, partial(_reduced, side=side, mode=mode), f"{side}-{mode}", 3 * ASPECT * side**2, store)


def _reduced(path: Path, side: int, mode: str) -> Pixels:
    image = read_rgb(path, min_side=int(side * RESERVE))
    short, long = sorted(image.size)
    if short > side:
        longer = int(side * long / short)  # as torchvision's Resize rounds it
        image = image.resize((side, longer) if image.width <= image.height else (longer, side), PIL_MODES[mode])
    return np.asarray(image)
