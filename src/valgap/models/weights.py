"""Weights from a file into a network: safely, and telling what fitted."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from valgap.errors import WeightsError

# Longest first, so that "module.pre." is not taken for "module.".
PREFIXES = ("module.pre.", "module.model.", "module.", "model.", "backbone.", "encoder.", "_orig_mod.", "net.")
NESTS = ("state_dict", "model", "model_state_dict", "weights", "params", "net")
MIN_SHARE = 0.5


@dataclass(frozen=True)
class WeightsReport:
    """What came out of a file: tensors loaded, names left out of it, names of the network it did not fill."""

    source: str
    loaded: int
    left_out: tuple[str, ...]
    missing: tuple[str, ...]
    prefix: str

    def line(self) -> str:
        """One line for the screen."""
        text = f"{self.loaded} tensors loaded from {self.source}"
        if self.prefix:
            text += f", prefix {self.prefix!r} taken off"
        if self.left_out:
            text += f"; left out: {_some(self.left_out)}"
        if self.missing:
            text += f"; not in the file: {_some(self.missing)}"
        return text


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a .safetensors, .pth, .pt or .bin file by name. Nothing in it is ever executed.

    Raises:
        WeightsError: no such file, no weights in it, or a file that would have to be unpickled.
    """
    if not path.is_file():
        raise WeightsError(f"no weights file {path}: give a .safetensors or .pth file, or --weights default or none")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of pickles of another protocol: they are read or refused
            raw = load_file(str(path)) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} holds more than weights (a pickled object), and running a stranger's pickle is unsafe: "
            "save its state_dict() and give that"
        ) from error
    except Exception as error:  # the unpickler of torch raises many kinds on damaged files
        raise WeightsError(f"{path} is no weights file that can be read ({type(error).__name__}: {error})") from error
    for name in NESTS:
        if isinstance(raw, Mapping) and isinstance(raw.get(name), Mapping):
            raw = raw[name]
    state = {str(k): v for k, v in raw.items() if isinstance(v, torch.Tensor)} if isinstance(raw, Mapping) else {}
    if not state:
        raise WeightsError(f"{path} holds no tensors by name: expected a state_dict")
    return state


def fit(model: nn.Module, state: dict[str, torch.Tensor], source: str) -> WeightsReport:
    """Load what fits by name and shape, after taking a common prefix off; the network is changed in place.

    Raises:
        WeightsError: less than half of the network's tensors are in the file.
    """
    own = model.state_dict()
    candidates = {"": state}
    for prefix in PREFIXES:
        if any(k.startswith(prefix) for k in state):
            candidates[prefix] = {k.removeprefix(prefix): v for k, v in state.items()}

    def fitting(named: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {k: v for k, v in named.items() if k in own and own[k].shape == v.shape}

    prefix = max(candidates, key=lambda p: len(fitting(candidates[p])))
    chosen = fitting(candidates[prefix])
    if len(chosen) < MIN_SHARE * len(own):
        raise WeightsError(
            f"{source} does not fit {type(model).__name__}: {len(chosen)} of {len(own)} tensors; "
            f"the file has names like {_some(tuple(state))}, the network like {_some(tuple(own))}"
        )
    model.load_state_dict(chosen, strict=False)
    left = tuple(k for k in candidates[prefix] if k not in chosen)
    return WeightsReport(source, len(chosen), left, tuple(k for k in own if k not in chosen), prefix)


def fit_in_order(model: nn.Module, state: dict[str, torch.Tensor], source: str) -> WeightsReport:
    """Load tensors under other names in the same order; every shape must agree.

    Raises:
        WeightsError: their number or one of the shapes differs.
    """
    own = model.state_dict()
    pairs = list(zip(own, state.values(), strict=False))
    if len(own) != len(state) or any(own[k].shape != v.shape for k, v in pairs):
        raise WeightsError(f"{source} does not fit {type(model).__name__}: the order or the shapes differ")
    model.load_state_dict(dict(pairs))
    return WeightsReport(source, len(pairs), (), (), "")


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
