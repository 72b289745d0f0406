"""The bundled backbone as a function from images to features. The one place where a network is run for the Case."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from valgap.features.looking import INPUT_SIDE, Pixels
from valgap.models.backbones import BUNDLED, bundled_file, create_model

BATCH = 32


class Backbone:
    """EfficientNet-Lite0 with its ImageNet weights, in eval mode.

    On CPUs with bfloat16 units (AMX, AVX-512 BF16) it runs in bfloat16, which is four times as fast there; elsewhere in
    float32, since emulated bfloat16 is 30 times slower.
    """

    batch = BATCH

    def __init__(self) -> None:
        loaded = create_model(BUNDLED, 2)
        model = loaded.model.eval()
        model.reset_classifier(0)  # type: ignore[operator]
        self._dtype = torch.bfloat16 if _has_bfloat16() else torch.float32
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model: nn.Module = model.to(self._device, self._dtype).to(memory_format=torch.channels_last)
        prep = loaded.preprocessing
        self._mean = torch.tensor(prep.mean, device=self._device).view(1, 3, 1, 1) * 255
        self._std = torch.tensor(prep.std, device=self._device).view(1, 3, 1, 1) * 255

    @torch.inference_mode()
    def features(self, images: list[Pixels]) -> npt.NDArray[np.float32]:
        """(n, 1280) float32 pooled features of n images (INPUT_SIDE, INPUT_SIDE, 3) uint8."""
        batch = torch.from_numpy(np.stack(images)).to(self._device).permute(0, 3, 1, 2)
        ready = ((batch.float() - self._mean) / self._std).to(self._dtype)
        out: torch.Tensor = self._model(ready.contiguous(memory_format=torch.channels_last))
        return out.float().cpu().numpy()


def backbone_key() -> str:
    """Names weights and preprocessing: features under equal keys are comparable."""
    weights = hashlib.blake2b(bundled_file().read_bytes(), digest_size=8).hexdigest()
    return f"{BUNDLED}-{weights}-{INPUT_SIDE}-1"


def _has_bfloat16() -> bool:
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):
        return False
