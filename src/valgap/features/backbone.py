"""The bundled backbone as a function from images to features, run by the engine's fastest way.

Every image passes twice, plain and larger and mirrored, and is read off at three depths. The first of those features are the
embeddings that everything is measured on; all together judge labels, where a second view and earlier layers help most.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from valgap.engine.forward import Forward, TorchForward, choose_forward
from valgap.engine.split import Normalised
from valgap.engine.store import cache_folder
from valgap.features.looking import INPUT_SIDE, MIRROR_SIDE, Pixels
from valgap.models.backbones import BUNDLED, bundled_file, create_model

# The engine's memory of the fastest way is shared with its own.
CHOICES = "forwards.json"


class Depths(nn.Module):
    """Images (n, 3, H, W) -> pooled features (n, 1792): the head's input (1280), the last block (320), the one before (192)."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Averages over the picture."""
        net = self.network
        maps = [net.bn1(net.conv_stem(images))]
        for block in net.blocks:
            maps.append(block(maps[-1]))
        last = net.bn2(net.conv_head(maps[-1]))
        return torch.cat([m.mean((2, 3)) for m in (last, maps[-1], maps[-2])], dim=1)


class Backbone:
    """EfficientNet-Lite0 with its ImageNet weights, in eval mode, about to see ``num_images`` images."""

    batch = 64

    def __init__(self, num_images: int) -> None:
        loaded = create_model(BUNDLED, 2)
        self._network = Normalised(Depths(loaded.model), loaded.preprocessing.mean, loaded.preprocessing.std)
        self._network.eval().requires_grad_(False)
        self._num_images = num_images
        self._forwards: dict[int, Forward] = {}

    def features(self, images: list[Pixels], mirrored: list[Pixels]) -> npt.NDArray[np.float32]:
        """(n, 3584) features of n images (INPUT_SIDE, INPUT_SIDE, 3) uint8 and of their larger mirror images."""
        return np.concatenate([self._pass(np.stack(images)), self._pass(np.stack(mirrored))], axis=1)

    def plain(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """(n, 1280) features of n images (H, W, 3) uint8 at the last depth; so few that no faster way is looked for."""
        forward = TorchForward(self._network, _device(), None, "fp32")
        parts = [forward(pixels[i : i + self.batch])[0][:, :1280] for i in range(0, len(pixels), self.batch)]
        return np.concatenate(parts)

    def _pass(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        side = pixels.shape[1]
        if side not in self._forwards:
            memory = cache_folder() / CHOICES
            self._forwards[side] = choose_forward(self._network, _device(), pixels, self._num_images, memory)
        return self._forwards[side](pixels)[0]


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def backbone_key() -> str:
    """Names weights and preprocessing: features under equal keys are comparable."""
    weights = hashlib.blake2b(bundled_file().read_bytes(), digest_size=8).hexdigest()
    return f"{BUNDLED}-{weights}-{INPUT_SIDE}-{MIRROR_SIDE}-2"
