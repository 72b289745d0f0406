"""How images must be prepared for a network's weights. Travels with them, into the checkpoint and out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torchvision import transforms

MODES = {
    "bilinear": transforms.InterpolationMode.BILINEAR,
    "bicubic": transforms.InterpolationMode.BICUBIC,
    "nearest": transforms.InterpolationMode.NEAREST,
    "lanczos": transforms.InterpolationMode.LANCZOS,
}


@dataclass(frozen=True)
class Preprocessing:
    """Size in pixels, share of the image that the centre crop keeps (0..1), interpolation, mean and std (0..1)."""

    size: int
    crop_share: float
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def of_timm(cls, config: dict[str, Any]) -> Preprocessing:
        """From timm's ``pretrained_cfg``."""
        return cls(
            size=int(config["input_size"][-1]),
            crop_share=float(config.get("crop_pct") or 0.875),
            interpolation=str(config.get("interpolation") or "bicubic"),
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
        )

    def at(self, size: int | None) -> Preprocessing:
        """The same at another size; None keeps it."""
        return self if size is None else replace(self, size=size)

    def eval_transform(self) -> Callable[[Image.Image], torch.Tensor]:
        """Resize, centre crop, normalise: RGB image -> (3, size, size) float32."""
        chain: Callable[[Image.Image], torch.Tensor] = transforms.Compose(
            [
                transforms.Resize(round(self.size / self.crop_share), MODES[self.interpolation]),
                transforms.CenterCrop(self.size),
                transforms.ToTensor(),
                transforms.Normalize(self.mean, self.std),
            ]
        )
        return chain

    def train_transform(self) -> Callable[[Image.Image], torch.Tensor]:
        """The reference augmentation: random crop, flip, colour, rotation of 15 degrees."""
        chain: Callable[[Image.Image], torch.Tensor] = transforms.Compose(
            [
                transforms.RandomResizedCrop(self.size, interpolation=MODES[self.interpolation]),
                transforms.RandomHorizontalFlip(),
                transforms.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
                transforms.RandomRotation(15),
                transforms.ToTensor(),
                transforms.Normalize(self.mean, self.std),
            ]
        )
        return chain
