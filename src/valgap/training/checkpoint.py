"""Checkpoints: safetensors beside JSON. Holds all that prediction needs: weights, class map, preprocessing, recipe."""

from __future__ import annotations

import importlib.metadata
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from valgap.errors import RecordError
from valgap.models.backbones import build, replace_head
from valgap.models.here import timm_name
from valgap.models.preprocessing import PIL_MODES, Preprocessing
from valgap.recipe import Recipe
from valgap.types.kinds import check_kinds

WEIGHTS = "checkpoint.safetensors"
FACTS = "checkpoint.json"
SCHEMA = 2
MOST_PIXELS, LEAST_CROP = 4096, 0.05  # of a side that a network is shown; of an image


def facts_of(classes: Sequence[str], backbone: str, recipe: Recipe, seed: int, flip: bool, temperature: float) -> dict[str, Any]:
    """What a checkpoint says of itself beside its preprocessing."""
    packages = ("valgap", "torch", "torchvision", "timm")
    return {
        "backbone": backbone,
        "classes": list(classes),
        "recipe": recipe.model_dump(),
        "seed": seed,
        "flip": flip,
        "temperature": temperature,
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def save(folder: Path, model: nn.Module, facts: Mapping[str, Any], preprocessing: Preprocessing) -> None:
    """Write both files whole or not at all; where there are weights, there is what they need."""
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    body = {"schema": SCHEMA, "preprocessing": asdict(preprocessing), **facts}
    save_file(state, str(folder / f"{WEIGHTS}.part"))
    (folder / f"{FACTS}.part").write_text(json.dumps(body, indent=1), encoding="utf-8")
    (folder / f"{FACTS}.part").replace(folder / FACTS)
    (folder / f"{WEIGHTS}.part").replace(folder / WEIGHTS)


def load(folder: Path) -> tuple[nn.Module, dict[str, Any], Preprocessing]:
    """(model in eval mode, facts, preprocessing). Raises RecordError where there is no checkpoint to read."""
    try:
        facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        state: dict[str, torch.Tensor] = load_file(str(folder / WEIGHTS))
        if int(facts["schema"]) > SCHEMA:
            raise RecordError(f"{folder} holds a checkpoint of a newer valgap (schema {facts['schema']}): update valgap")
        values = facts["preprocessing"]
        preprocessing = Preprocessing(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})
        _require_sense(facts, preprocessing)
        backbone = str(facts["backbone"])
        model = build(timm_name(backbone))
        replace_head(model, len(facts["classes"]))
        model.load_state_dict(state)
    except FileNotFoundError as error:
        raise RecordError(f"{folder} holds no checkpoint: give the run directory of a `valgap train`") from error
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        raise RecordError(f"the checkpoint in {folder} cannot be read ({type(error).__name__}: {error})") from error
    return model.eval(), facts, preprocessing


def _require_sense(facts: Mapping[str, Any], preprocessing: Preprocessing) -> None:
    """Raises TypeError or ValueError for what nobody can predict with: it would only be seen at the first image."""
    check_kinds(preprocessing)
    classes, temperature = facts["classes"], facts.get("temperature", 1.0)
    if not isinstance(classes, list) or not classes or not all(isinstance(c, str) for c in classes):
        raise TypeError("classes are a list of names")
    if not isinstance(temperature, (int, float)) or not 0 < temperature < math.inf:
        raise ValueError(f"no temperature is {str(temperature)[:40]!r}")
    if not 1 <= preprocessing.size <= MOST_PIXELS or not LEAST_CROP <= preprocessing.crop_share <= 2:
        raise ValueError(f"no image is cut to {preprocessing.size} pixels, {preprocessing.crop_share} of it")
    if preprocessing.interpolation not in PIL_MODES:
        raise ValueError(f"no interpolation is called {preprocessing.interpolation[:40]!r}")
    if not all(map(math.isfinite, (*preprocessing.mean, *preprocessing.std))) or min(preprocessing.std) <= 0:
        raise ValueError("mean and std are finite, and std is positive")
