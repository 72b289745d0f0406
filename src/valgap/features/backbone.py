"""The bundled backbone as a function from images to features, run by the engine's fastest way."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import torch

from valgap.engine.forward import Forward, choose_forward
from valgap.engine.split import Normalised, body_of
from valgap.engine.store import cache_folder
from valgap.features.looking import INPUT_SIDE, Pixels
from valgap.models.backbones import BUNDLED, bundled_file, create_model

# The engine's memory of the fastest way is shared with its own.
CHOICES = "forwards.json"


class Backbone:
    """EfficientNet-Lite0 with its ImageNet weights, in eval mode, about to see ``num_images`` images."""

    batch = 64

    def __init__(self, num_images: int) -> None:
        loaded = create_model(BUNDLED, 2)
        self._network = Normalised(body_of(loaded.model, loaded.head), loaded.preprocessing.mean, loaded.preprocessing.std).eval()
        self._num_images = num_images
        self._forward: Forward | None = None

    def features(self, images: list[Pixels]) -> npt.NDArray[np.float32]:
        """(n, 1280) float32 pooled features of n images (INPUT_SIDE, INPUT_SIDE, 3) uint8."""
        pixels = np.stack(images)
        if self._forward is None:
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            self._forward = choose_forward(self._network, device, pixels, self._num_images, cache_folder() / CHOICES)
        return self._forward(pixels)[0]


def backbone_key() -> str:
    """Names weights and preprocessing: features under equal keys are comparable."""
    weights = hashlib.blake2b(bundled_file().read_bytes(), digest_size=8).hexdigest()
    return f"{BUNDLED}-{weights}-{INPUT_SIDE}-1"
