"""How images must be prepared for a network's weights. Travels with them, into the checkpoint and out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    import torch

PIL_MODES = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
}


def mode_of(name: str) -> Any:
    """torchvision's interpolation of a name in PIL_MODES. Its import takes seconds, and who only looks needs none of it."""
    from torchvision.transforms import InterpolationMode

    return InterpolationMode(name)


# RandomResizedCrop's own smallest crop.
REFERENCE_CROP = 0.08


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

    def at(self, size: int | None, crop_share: float | None = None) -> Preprocessing:
        """The same at another size, with another crop; None keeps it."""
        return replace(self, size=size or self.size, crop_share=crop_share or self.crop_share)

    @property
    def short_side(self) -> int:
        """Pixels of the shorter side before the centre crop."""
        return round(self.size / self.crop_share)

    def eval_square(self, image: Image.Image) -> Image.Image:
        """Resize and centre crop in one step: the pixels of `eval_transform` before it makes a tensor of them.

        Only what the crop keeps is computed. Equal to resizing all and cropping up to rounding: 2 grey levels at most.
        """
        short, size = self.short_side, self.size
        if short < size:  # the crop pads: leave that to torchvision
            from torchvision import transforms

            whole = transforms.Compose([transforms.Resize(short, mode_of(self.interpolation)), transforms.CenterCrop(size)])
            return whole(image)  # type: ignore[no-any-return]
        across, down = image.size
        wide, high = (short, int(short * down / across)) if across <= down else (int(short * across / down), short)
        left, top = round((wide - size) / 2.0), round((high - size) / 2.0)
        x, y = across / wide, down / high
        box = (left * x, top * y, min(across, (left + size) * x), min(down, (top + size) * y))
        return image.resize((size, size), PIL_MODES[self.interpolation], box=box)

    def eval_transform(self) -> Callable[[Image.Image], torch.Tensor]:
        """Resize, centre crop, normalise: RGB image -> (3, size, size) float32."""
        from torchvision import transforms

        chain: Callable[[Image.Image], torch.Tensor] = transforms.Compose(
            [
                transforms.Resize(round(self.size / self.crop_share), mode_of(self.interpolation)),
                transforms.CenterCrop(self.size),
                transforms.ToTensor(),
                transforms.Normalize(self.mean, self.std),
            ]
        )
        return chain

    @staticmethod
    def smallest_crop(augment: str, crop_share: float) -> float:
        """The least share of an image, 0..1, that `train_transform` of the same arguments may show."""
        return {"none": 1.0, "light": crop_share, "reference": REFERENCE_CROP}[augment]

    def train_transform(self, augment: str, crop_share: float, flip: bool) -> Callable[[Image.Image], torch.Tensor]:
        """An augmentation by name: ``light``, ``reference`` or ``none``; RGB image -> (3, size, size) float32.

        ``light`` crops at least ``crop_share`` of the image, and mirrors if ``flip``. ``reference`` is the chain in circulation.
        """
        from torchvision import transforms

        mode = mode_of(self.interpolation)
        steps: dict[str, list[Callable[[Any], Any]]] = {
            "none": [transforms.Resize(self.short_side, mode), transforms.CenterCrop(self.size)],
            "light": [transforms.RandomResizedCrop(self.size, (crop_share, 1.0), interpolation=mode)],
            "reference": [
                transforms.RandomResizedCrop(self.size, (REFERENCE_CROP, 1.0), interpolation=mode),
                transforms.RandomHorizontalFlip(),
                transforms.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
                transforms.RandomRotation(15),
            ],
        }
        chosen = steps[augment] + ([transforms.RandomHorizontalFlip()] if flip and augment == "light" else [])
        chain: Callable[[Image.Image], torch.Tensor] = transforms.Compose(
            [*chosen, transforms.ToTensor(), transforms.Normalize(self.mean, self.std)]
        )
        return chain
