"""What is changed sample by sample: the target and the image of each row, by the position that it was drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from valgap.data.images import read_middle, read_whole
from valgap.errors import DataError
from valgap.seams.acting.act import Act
from valgap.seams.looking.batches import read_batch

Pixels = npt.NDArray[np.uint8]
# Of the middle square, so much of either side is shown; training sees it at a random place.
SHOWN = 0.9
# Images read once stay in memory while they take no more than this.
MAX_BYTES = 256 << 20
GREY = np.array([0.299, 0.587, 0.114], np.float32)


class PairByFile(Act):
    """Each sample has the target that ``targets`` gives its position, by data set; -1 leaves the program's own."""

    by_position = True

    def __init__(self, targets: Mapping[str, Sequence[int]], phase: str = "both") -> None:
        super().__init__(phase)
        self.targets = {int(k): np.asarray(v, np.int64) for k, v in targets.items()}

    def batch(self, batch: Any) -> Any:
        if self.drawn is None or self.drawn[0] not in self.targets:
            return batch
        known, positions = self.targets[self.drawn[0]], np.asarray(self.drawn[1])
        if (positions < 0).any() or (positions >= len(known)).any():
            return batch
        new = torch.from_numpy(known[positions])
        for target in read_batch(None, self.drawn[1], batch).targets.values():
            if target.is_floating_point() or target.ndim != 1 or len(target) != len(new):
                continue
            there = (new >= 0).to(target.device)
            target.copy_(torch.where(there, new.to(target.device, target.dtype), target))
            self.acted += 1
            break
        return batch


class ReadSoundly(Act):
    """The images at the model's input are their files, read upright and whole, in the colours that the model is to be given.

    Args:
        files: by data set, the file of each position; "" where it is not known, and the program's own image stays.
        scale: with ``shift``, for each channel what makes a pixel of 0..255 a value for the model.
        shift: see ``scale``.
        reverse: whether the model is given blue, green, red.
        phase: in training each image is mirrored and shifted at random, with random numbers of our own.
        frame: share of the middle square that is shown; 0 for all of the image, whatever its shape.
        vary: whether training images are mirrored and shifted.
        size: (height, width) of all images; None for what the program gives.
    """

    by_position = True

    def __init__(
        self,
        files: Mapping[str, Sequence[str]],
        scale: Sequence[float],
        shift: Sequence[float],
        reverse: bool = False,
        phase: str = "both",
        frame: float = SHOWN,
        vary: bool = True,
        size: Sequence[int] | None = None,
    ) -> None:
        super().__init__(phase)
        self.frame, self.vary = float(frame), bool(vary)
        self.size = (int(size[0]), int(size[1])) if size is not None else None
        self.files = {int(k): list(v) for k, v in files.items()}
        self.scale, self.shift = np.array(scale, np.float32), np.array(shift, np.float32)
        self.reverse = bool(reverse)
        self._draw = np.random.default_rng(torch.initial_seed() % 2**63)
        self._read: dict[tuple[str, tuple[int, int]], Pixels | None] = {}
        self._room = MAX_BYTES

    def inputs(self, images: torch.Tensor) -> torch.Tensor:
        if self.drawn is None or self.drawn[0] not in self.files or images.ndim != 4 or images.shape[1] not in (1, 3):
            return images
        own = (int(images.shape[2]), int(images.shape[3]))
        files, size = self.files[self.drawn[0]], self.size or own
        rows: list[int] = []
        values: list[npt.NDArray[np.float32]] = []
        for row, position in enumerate(self.drawn[1]):
            pixels = self._pixels(files[position], size) if 0 <= position < len(files) and files[position] else None
            if pixels is not None:
                rows.append(row)
                values.append(self._values(pixels, size, int(images.shape[1])))
        if not rows:
            return images
        self.acted += 1
        new = torch.from_numpy(np.stack(values)).permute(0, 3, 1, 2)
        if not images.is_floating_point():
            bounds = torch.iinfo(images.dtype)
            new = new.round().clamp(bounds.min, bounds.max)
        changed = images.detach().clone()
        if size != own:
            changed = torch.nn.functional.interpolate(changed.float(), size).to(images.dtype)
        changed[torch.tensor(rows, device=images.device)] = new.to(images)
        return changed

    def _pixels(self, path: str, size: tuple[int, int]) -> Pixels | None:
        """The middle square of a file, larger than ``size`` by what is not shown, or all of it; None where it cannot be read."""
        if (path, size) in self._read:
            return self._read[path, size]
        try:
            pixels: Pixels | None = read_middle(path, self._with_edges(size)) if self.frame > 0 else read_whole(path, size)
        except DataError:
            pixels = None
        taken = pixels.nbytes if pixels is not None else 0
        if taken <= self._room:
            self._room -= taken
            self._read[path, size] = pixels
        return pixels

    def _values(self, pixels: Pixels, size: tuple[int, int], channels: int) -> npt.NDArray[np.float32]:
        free = (pixels.shape[0] - size[0], pixels.shape[1] - size[1])
        varied = self.training and self.vary
        top, left = (int(self._draw.integers(0, n + 1)) if varied else n // 2 for n in free)
        shown = pixels[top : top + size[0], left : left + size[1]]
        if varied and self._draw.random() < 0.5:
            shown = shown[:, ::-1]
        if self.reverse:
            shown = shown[:, :, ::-1]
        given = shown.astype(np.float32)
        if channels == 1:
            given = (given @ GREY)[..., None]
        return np.asarray(given * self.scale[:channels] + self.shift[:channels], np.float32)

    def _with_edges(self, size: tuple[int, int]) -> tuple[int, int]:
        height, width = (max(n, round(n / self.frame)) for n in size)
        return height, width
