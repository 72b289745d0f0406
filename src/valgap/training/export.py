"""A trained network for use elsewhere: pixels in, probabilities out, so that nobody has to repeat its normalisation."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from valgap.engine.split import Normalised
from valgap.errors import ConfigError, RecordError
from valgap.models.preprocessing import Preprocessing
from valgap.training.checkpoint import WEIGHTS
from valgap.training.checkpoint import load as load_checkpoint

SUFFIXES = {"onnx": ".onnx", "torchscript": ".pt", "safetensors": ".safetensors"}


@dataclass(frozen=True)
class Exported:
    """The file, in words, and the largest difference of its probabilities to ours on a random batch (nan: not run)."""

    path: Path
    about: str
    max_difference: float


class Deployed(nn.Module):
    """Pixels (N, H, W, 3) uint8, resized and cropped -> probabilities (N, C), normalisation and temperature inside."""

    def __init__(self, model: nn.Module, preprocessing: Preprocessing, temperature: float) -> None:
        super().__init__()
        self.network = Normalised(model, preprocessing.mean, preprocessing.std)
        self.temperature = temperature

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """The probabilities."""
        logits: torch.Tensor = self.network(pixels)
        return (logits / self.temperature).softmax(1)


def export(run: Path, format: str, out: Path | None = None) -> Exported:
    """Write the model of a run as ONNX, TorchScript or safetensors, with a JSON beside it that describes its input.

    Raises:
        ConfigError: no such format, or its packages are not installed.
        RecordError: ``run`` holds no checkpoint, or the file exists.
    """
    if format not in SUFFIXES:
        raise ConfigError(f"no format is called {format!r}: there are {', '.join(SUFFIXES)}")
    model, facts, preprocessing = load_checkpoint(run)
    path = out if out is not None else run / f"model{SUFFIXES[format]}"
    if path.exists():
        raise RecordError(f"{path} exists: choose another --out, nothing is overwritten")
    deployed = Deployed(model, preprocessing, float(facts.get("temperature", 1.0))).eval()
    size = preprocessing.size
    pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    writers: dict[str, Callable[[], npt.NDArray[Any] | None]] = {
        "onnx": lambda: _onnx(deployed, pixels, path),
        "torchscript": lambda: _torchscript(deployed, pixels, path),
        "safetensors": lambda: _safetensors(run, path),
    }
    found = writers[format]()
    with torch.inference_mode():
        expected = deployed(torch.from_numpy(pixels)).numpy()
    difference = float(np.abs(found - expected).max()) if found is not None else float("nan")
    described = path.with_suffix(path.suffix + ".json")
    described.write_text(json.dumps(_description(facts, preprocessing, format), indent=1), encoding="utf-8")
    if found is None:
        return Exported(path, f"weights by name; {described.name} says how images are prepared", difference)
    about = f"uint8 pixels (N, {size}, {size}, 3) in, probabilities out; differs from torch by {difference:.1e} at most"
    return Exported(path, f"{about}; {described.name} says how images are prepared", difference)


def _description(facts: dict[str, Any], preprocessing: Preprocessing, format: str) -> dict[str, Any]:
    inside = format != "safetensors"
    return {
        "classes": facts["classes"],
        "backbone": facts["backbone"],
        "input": "uint8 (N, H, W, 3), RGB" if inside else "float32 (N, 3, H, W), RGB / 255, normalised with mean and std",
        "before_input": f"shorter side to {preprocessing.short_side} px ({preprocessing.interpolation}), "
        f"centre crop of {preprocessing.size} px",
        "normalisation": "inside the model" if inside else "not inside",
        "output": "probabilities (N, C)" if inside else "logits (N, C); divide by temperature before the softmax",
        "temperature": facts.get("temperature", 1.0),
        "preprocessing": asdict(preprocessing),
        "versions": facts["versions"],
    }


def _onnx(deployed: nn.Module, pixels: npt.NDArray[np.uint8], path: Path) -> npt.NDArray[Any]:
    """Write ONNX and run it in onnxruntime; returns its probabilities."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"ONNX needs more packages ({error.name}): pip install 'valgap[export]'") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            deployed,
            (torch.from_numpy(pixels),),
            str(path),
            input_names=["pixels"],
            output_names=["probabilities"],
            dynamic_shapes={"pixels": {0: torch.export.Dim("batch")}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"pixels": pixels})[0])


def _torchscript(deployed: nn.Module, pixels: npt.NDArray[np.uint8], path: Path) -> npt.NDArray[Any]:
    """Write TorchScript and run it as read back; returns its probabilities."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(deployed, torch.from_numpy(pixels)), str(path))
        again = torch.jit.load(str(path))
        return np.asarray(again(torch.from_numpy(pixels)).numpy())


def _safetensors(run: Path, path: Path) -> None:
    """Copy the weights."""
    shutil.copyfile(run / WEIGHTS, path)
