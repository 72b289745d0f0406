"""Statistics of the tensors that pass the model and the loss. Kept on their device until a pass is written."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

# Which batches of a pass are measured: the first few, then a fixed share, so that the cost stays below a
# percent of a forward pass and two runs of one program sample the same batches.
FIRST_BATCHES = 4
EVERY_BATCH = 16
MAX_IMAGES = 16
KEPT_IMAGES = 4
# Lattice and autocorrelation are taken from the middle of the kept images: enough pixels, and cheap to sort.
KEPT_SIDE = 96
# What the model saw, kept to be drawn: enough to recognise a picture, too little to matter on a disk.
SEEN_IMAGES = 8
SEEN_SIDE = 64
FINGERPRINT_GRID = 8
FEW = 8  # images at a time
# Above this share of an 8-bit level, values do not lie on a lattice of grey levels.
LATTICE_TOLERANCE = 0.05


def is_sampled(number: int) -> bool:
    """Whether the batch or step with this number, from 0, is measured."""
    return number < FIRST_BATCHES or number % EVERY_BATCH == 0


def fingerprint(images: torch.Tensor) -> torch.Tensor:
    """(N,) float32: a fixed projection of each image of (N, ...); equal images give equal numbers."""
    if images.ndim == 4:
        step_h = max(1, images.shape[2] // FINGERPRINT_GRID)
        step_w = max(1, images.shape[3] // FINGERPRINT_GRID)
        images = images[:, :, ::step_h, ::step_w]
    flat = images.reshape(images.shape[0], -1)[:, :1024].float()
    return (flat * _projection(flat.shape[1], flat.device)).sum(dim=1)


@functools.lru_cache(maxsize=8)
def _projection(width: int, device: torch.device) -> torch.Tensor:
    """(width,) float32, the same in every process."""
    return torch.cos(torch.arange(width, dtype=torch.float32, device=device) * 1.7) + 0.3


def miniatures(images: torch.Tensor) -> torch.Tensor:
    """(n, C, h, w) float32: the first few images of (N, C, H, W), at most 64 pixels high and wide."""
    few = images[:SEEN_IMAGES].float()
    side = [min(n, SEEN_SIDE) for n in few.shape[2:]]
    return torch.nn.functional.interpolate(few, side, mode="area")


def quantized(*parts: torch.Tensor) -> dict[str, Any]:
    """The fields of SeenInputs: all of these (n, C, h, w) as uint8, with the values of 0 and 255 per channel."""
    parts = tuple(p if p.dtype in (torch.float32, torch.float64) else p.double() for p in parts)
    low, high = _extremes(parts)
    if not bool(torch.isfinite(low).all() & torch.isfinite(high).all()):
        parts = tuple(torch.nan_to_num(p, nan=0.0, posinf=0.0, neginf=0.0) for p in parts)
        low, high = _extremes(parts)
    scale = 255 / torch.where(high > low, high - low, 1.0)
    levels = torch.empty((sum(len(p) for p in parts), *parts[0].shape[1:]), dtype=torch.uint8)
    first = 0
    for part in parts:
        for few in part.split(FEW):  # what is computed stays in the processor's cache: memory takes longer than arithmetic
            values = few - low.to(few.dtype)[:, None, None]
            levels[first : first + len(few)] = values.mul_(scale.to(few.dtype)[:, None, None]).round_()
            first += len(few)
    return {"images": levels.numpy(), "low": low.float().cpu().numpy(), "high": high.float().cpu().numpy()}


def _extremes(parts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """(C,) float64 the smallest and the largest value of each channel of all (N, C, H, W); nan where one of them is."""
    axes = (0, 2, 3)
    low, high = torch.stack([p.amin(axes) for p in parts]).amin(0), torch.stack([p.amax(axes) for p in parts]).amax(0)
    return low.double(), high.double()


class InputCollector:
    """Accumulates InputStats over the sampled batches of one pass."""

    def __init__(self) -> None:
        self._rows: list[torch.Tensor] = []
        self._kept: torch.Tensor | None = None
        self._shapes: dict[tuple[int, ...], None] = {}
        self._dtype = ""

    def add(self, images: torch.Tensor, number: int) -> None:
        """Look at one batch (N, C, H, W) with its number within the pass."""
        if images.ndim != 4:
            return
        if len(self._shapes) < 16:
            self._shapes[tuple(images.shape[1:])] = None
        if not is_sampled(number):
            return
        self._dtype = self._dtype or str(images.dtype).removeprefix("torch.")
        # (C, values): side by side in memory they are added up six times as fast as over the axes of the batch.
        part = images[:MAX_IMAGES, :, ::2, ::2].transpose(0, 1).flatten(1).float()
        row = [part.mean(1), part.square().mean(1), part.amin(1), part.amax(1)]
        self._rows.append(torch.stack(row))
        if self._kept is None:
            top, left = (max(0, (n - KEPT_SIDE) // 2) for n in images.shape[2:])
            middle = images[:KEPT_IMAGES, :, top : top + KEPT_SIDE, left : left + KEPT_SIDE]
            self._kept = middle.detach().clone()

    def result(self) -> dict[str, Any] | None:
        """The fields of InputStats as arrays; None when no image batch was seen."""
        if not self._rows:
            return None
        width = self._rows[0].shape[1]
        rows = torch.stack([r for r in self._rows if r.shape[1] == width]).cpu().double().numpy()
        finite = np.isfinite(rows).all(axis=(1, 2))
        used = rows[finite] if finite.any() else rows
        mean = used[:, 0].mean(0)
        std = np.sqrt(np.maximum(used[:, 1].mean(0) - mean**2, 0))
        kept = self._kept.float().cpu().numpy() if self._kept is not None else np.zeros((0, width, 1, 1), np.float32)
        shapes = list(self._shapes)
        return {
            "shape": list(shapes[0]),
            "shapes": [list(s) for s in shapes],
            "dtype": self._dtype,
            "minimum": used[:, 2].min(0).astype(np.float32),
            "maximum": used[:, 3].max(0).astype(np.float32),
            "mean": mean.astype(np.float32),
            "std": std.astype(np.float32),
            "batch_means": used[:, 0].astype(np.float32),
            "quantum": np.array([lattice_step(kept[:, c]) for c in range(width)], np.float32),
            "autocorrelation": autocorrelation(kept).astype(np.float32),
            "nonfinite": int((~finite).sum()),
            "sampled_batches": len(rows),
        }


def lattice_step(values: npt.NDArray[np.floating]) -> float:
    """The distance between grey levels if all values lie on one evenly spaced lattice, else nan.

    An 8-bit image after ToTensor and Normalize(m, s) lies on a lattice of step 1 / (255 s), whatever its
    brightness. An image resized as float tensors lies on none.
    """
    # Not np.unique: it imports NumPy's masked arrays, which takes as long as many batches.
    ordered = np.sort(values, axis=None)
    levels = ordered[np.concatenate(([True], ordered[1:] != ordered[:-1]))[: len(ordered)]].astype(np.float64)
    if len(levels) < 8 or not np.isfinite(levels).all() or len(levels) > 4096:
        return float("nan")
    gaps = np.diff(levels)
    span = levels[-1] - levels[0]
    gaps = gaps[gaps > span * 1e-5]
    step = float(gaps.min())
    for _ in range(3):  # refine: each level is a whole number of steps from the first
        count = np.round((levels - levels[0]) / step)
        if count[-1] == 0:
            return float("nan")
        step = float((count * (levels - levels[0])).sum() / (count**2).sum())
    residual = np.abs((levels - levels[0]) / step - np.round((levels - levels[0]) / step))
    return step if float(residual.max()) < LATTICE_TOLERANCE else float("nan")


def autocorrelation(images: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """(2, 4): mean correlation of pixels 1..4 apart along rows and along columns, over (N, C, H, W)."""
    out = np.full((2, 4), np.nan)
    if images.size == 0 or min(images.shape[2:]) < 8:
        return out
    images = images.astype(np.float64)  # squares of large values are no number in float32
    centred = images - images.mean(axis=(2, 3), keepdims=True)
    power = (centred**2).mean(axis=(2, 3))
    alive = power > 1e-12
    if not alive.any():
        return out
    for lag in range(1, 5):
        across = (centred[:, :, :, lag:] * centred[:, :, :, :-lag]).mean(axis=(2, 3))
        down = (centred[:, :, lag:] * centred[:, :, :-lag]).mean(axis=(2, 3))
        out[0, lag - 1] = (across[alive] / power[alive]).mean()
        out[1, lag - 1] = (down[alive] / power[alive]).mean()
    return out


MAX_WEIGHTS = 4_096


class LossCollector:
    """Accumulates LossStats over one pass."""

    def __init__(self) -> None:
        self.name = ""
        self.target_kind = "unknown"
        self.label_smoothing = 0.0
        self.class_weights = False
        self._weights: torch.Tensor | None = None
        self.num_outputs = -1
        self.calls = 0
        self._rows: list[torch.Tensor] = []

    def add(self, name: str, logits: torch.Tensor, target: Any, kwargs: dict[str, Any], number: int) -> None:
        """Look at one loss call with logits (N, C) or (N,)."""
        self.calls += 1
        if not self.name:
            self.name = name
            self.label_smoothing = float(kwargs.get("label_smoothing") or 0.0)
            weights = kwargs.get("weight")
            self.class_weights = weights is not None
            if isinstance(weights, torch.Tensor) and weights.ndim == 1 and len(weights) <= MAX_WEIGHTS:
                self._weights = weights.detach().clone()
            self.num_outputs = int(logits.shape[1]) if logits.ndim > 1 else 1
            self.target_kind = _target_kind(target)
        if is_sampled(number):
            x = logits.detach().float().reshape(logits.shape[0], -1)
            sums = x.sum(1)
            self._rows.append(torch.stack([x.min(), x.max(), sums.min(), sums.max(), (x == 0).float().mean()]).double())

    def result(self, num_batches: int) -> dict[str, Any] | None:
        """The fields of LossStats; None when no loss was seen."""
        if not self.calls:
            return None
        rows = torch.stack(self._rows).cpu().numpy() if self._rows else np.full((1, 5), np.nan)
        return {
            "name": self.name,
            "target_kind": self.target_kind,
            "label_smoothing": self.label_smoothing,
            "class_weights": self.class_weights,
            "weights": self._weights.float().cpu().tolist() if self._weights is not None else [],
            "logit_min": float(rows[:, 0].min()),
            "logit_max": float(rows[:, 1].max()),
            "row_sum_min": float(rows[:, 2].min()),
            "row_sum_max": float(rows[:, 3].max()),
            "zero_fraction": float(rows[:, 4].mean()),
            "num_outputs": self.num_outputs,
            "calls_per_batch": self.calls / max(1, num_batches),
        }


def _target_kind(target: Any) -> str:
    if not isinstance(target, torch.Tensor):
        return "unknown"
    if not target.is_floating_point():
        return "index" if target.ndim == 1 else "onehot"
    if target.ndim == 2 and target.shape[1] > 1:
        whole = bool(((target == 0) | (target == 1)).all())
        return "onehot" if whole else "soft"
    return "index" if bool(((target == 0) | (target == 1)).all()) else "soft"
