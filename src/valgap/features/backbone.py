"""The bundled backbone as a function from images to features, run by the engine's fastest way.

Every image passes twice, plain and larger and mirrored, and is read off at three depths. The first of those features are the
embeddings that everything is measured on; all together judge labels, where a second view and earlier layers help most.
"""

from __future__ import annotations

import hashlib
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from valgap.engine.forward import Forward, TorchForward, choose_forward
from valgap.engine.split import Normalised
from valgap.engine.store import cache_folder
from valgap.features.looking import INPUT_SIDE, MIRROR_SIDE, Pixels
from valgap.models.lite0 import BUNDLED, PREPROCESSING, Lite0, bundled_file, folded, load_lite0

# The engine's memory of the fastest way is shared with its own.
CHOICES = "forwards.json"
# Images at a time where torch itself runs the network on a processor: their maps then fit into its caches.
FEW = 16


class Depths(nn.Module):
    """Images (n, 3, H, W) -> pooled features (n, 1792): the head's input (1280), the last stage (320), the one before (192)."""

    def __init__(self, network: Lite0) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Averages over the picture."""
        return torch.cat([m.mean((2, 3)) for m in self.network.depths(images)], dim=1)


class Backbone:
    """EfficientNet-Lite0 with its ImageNet weights, in eval mode, about to see ``num_images`` images."""

    batch = 64

    def __init__(self, num_images: int) -> None:
        self._num_images = num_images
        self._forwards: dict[int, Forward] = {}

    @cached_property
    def _network(self) -> nn.Module:
        return _normalised(load_lite0())

    @cached_property
    def _plain(self) -> Forward:
        return TorchForward(_normalised(folded(load_lite0())), _device(), None, "fp32")

    def features(self, images: list[Pixels], mirrored: list[Pixels]) -> npt.NDArray[np.float32]:
        """(n, 3584) features of n images (INPUT_SIDE, INPUT_SIDE, 3) uint8 and of their larger mirror images."""
        return np.concatenate([self._pass(np.stack(images)), self._pass(np.stack(mirrored))], axis=1)

    def plain(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """(n, 1280) features of n images (H, W, 3) uint8 at the last depth; so few that no faster way is looked for."""
        parts = [self._plain(pixels[i : i + FEW])[0][:, :1280] for i in range(0, len(pixels), FEW)]
        return np.concatenate(parts)

    def _pass(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        side = pixels.shape[1]
        if side not in self._forwards:
            memory = cache_folder() / CHOICES
            self._forwards[side] = choose_forward(self._network, _device(), pixels, self._num_images, memory)
        return self._forwards[side](pixels)[0]


def _normalised(network: Lite0) -> nn.Module:
    return Normalised(Depths(network), PREPROCESSING.mean, PREPROCESSING.std).eval()


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def backbone_key() -> str:
    """Names weights and preprocessing: features under equal keys are comparable."""
    weights = hashlib.blake2b(bundled_file().read_bytes(), digest_size=8).hexdigest()
    return f"{BUNDLED}-{weights}-{INPUT_SIDE}-{MIRROR_SIDE}-2"
