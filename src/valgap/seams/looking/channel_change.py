"""What a program does to images between loader and model: a scale and an offset of each channel, perhaps another order of axes.

Wrappers of loaders normalise on the device (timm's prefetcher), and so do many loops. Learnt from the first batch of a walk.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

KEPT = 2  # images of the first batch
# Largest deviation from a straight line, of the spread of the values: that of a half-precision cast is smaller.
TOLERANCE = 2e-3


@dataclass
class FirstImages:
    """The first images of a walk, as the loader gave them and as the model got them."""

    loaded: torch.Tensor
    used: torch.Tensor | None = None

    def change(self) -> Change | None:
        """The change that leads from one to the other; None where there is none, or none of this kind."""
        if self.used is None or self.used.ndim != 4 or self.loaded.ndim != 4:
            return None
        turned = self.used.shape != self.loaded.shape
        loaded = self.loaded.permute(0, 3, 1, 2) if turned else self.loaded  # from (N, H, W, C)
        if loaded.shape != self.used.shape:
            return None
        before, after = (t.transpose(0, 1).flatten(1).double().cpu() for t in (loaded, self.used))
        if not turned and self.loaded.dtype == self.used.dtype and torch.equal(before, after):
            return None
        centred = before - before.mean(1, keepdim=True)
        spread = centred.square().sum(1)
        if not bool((spread > 0).all()) or not bool(torch.isfinite(after).all()):
            return None
        scale = (centred * after).sum(1) / spread
        offset = after.mean(1) - scale * before.mean(1)
        rest = (after - scale[:, None] * before - offset[:, None]).abs().amax(1)
        if bool((rest > TOLERANCE * after.std(1).clamp_min(1e-12)).any()):
            return None
        return Change(scale, offset, self.used.dtype, turned)


@dataclass
class Change:
    """A scale and an offset per channel, (C,) each, and the type that the model is given."""

    scale: torch.Tensor
    offset: torch.Tensor
    dtype: torch.dtype
    turned: bool = False  # images come as (N, H, W, C)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Images of (N, C, H, W), or (N, H, W, C) where they come so, as the model is given them."""
        images = images.permute(0, 3, 1, 2) if self.turned and images.ndim == 4 else images
        if images.ndim != 4 or images.shape[1] != len(self.scale):
            return images
        scale, offset = (v.float().to(images.device)[None, :, None, None] for v in (self.scale, self.offset))
        return (images.float() * scale + offset).to(self.dtype)
