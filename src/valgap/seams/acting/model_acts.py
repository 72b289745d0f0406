"""What is changed at the model: its modes, its inputs, its weights, and which of several models is called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from valgap.seams.acting.act import Act
from valgap.seams.looking.dropouts import drop_probability
from valgap.seams.looking.routes import owner_of
from valgap.seams.looking.tracked import TrackedModel


class EvalMode(Act):
    """The whole model in eval mode."""

    def modes(self, model: nn.Module) -> list[tuple[nn.Module, bool]]:
        return [(m, False) for m in model.modules() if m.training]


class TrainMode(Act):
    """The model in train mode, except BatchNorm layers whose weights are frozen."""

    def modes(self, model: nn.Module) -> list[tuple[nn.Module, bool]]:
        return [(m, True) for m in model.modules() if not m.training and not _frozen_norm(m)]


class HoldBatchNorm(Act):
    """BatchNorm layers in eval mode: all, or only those whose own weights are frozen."""

    def __init__(self, phase: str = "train", only_frozen: bool = True) -> None:
        super().__init__(phase)
        self.only_frozen = only_frozen

    def modes(self, model: nn.Module) -> list[tuple[nn.Module, bool]]:
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training]
        return [(m, False) for m in norms if not self.only_frozen or _frozen_norm(m)]


class NoDropout(Act):
    """Dropout layers, and those of stochastic depth, in eval mode."""

    def modes(self, model: nn.Module) -> list[tuple[nn.Module, bool]]:
        return [(m, False) for m in model.modules() if m.training and drop_probability(m) > 0]


class Affine(Act):
    """Images times ``scale`` plus ``shift``, per channel: another normalisation or range."""

    def __init__(self, scale: Sequence[float], shift: Sequence[float], phase: str = "both") -> None:
        super().__init__(phase)
        self.scale, self.shift = list(scale), list(shift)

    def inputs(self, images: torch.Tensor) -> torch.Tensor:
        if len(self.scale) not in (1, images.shape[1]) or not images.is_floating_point():
            return images
        self.acted += 1
        scale, shift = (torch.tensor(v, dtype=images.dtype, device=images.device) for v in (self.scale, self.shift))
        return images * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)


class FlipChannels(Act):
    """The channels in reverse order; (scale, shift) put the normalisation of the other order right."""

    def inputs(self, images: torch.Tensor) -> torch.Tensor:
        if images.shape[1] != 3:
            return images
        self.acted += 1
        return images.flip(1)


class Resize(Act):
    """Images resized to ``size`` (H, W) at the model's input."""

    def __init__(self, size: Sequence[int], phase: str = "both") -> None:
        super().__init__(phase)
        self.size = [int(v) for v in size]

    def inputs(self, images: torch.Tensor) -> torch.Tensor:
        if list(images.shape[2:]) == self.size:
            return images
        self.acted += 1
        return functional.interpolate(images, self.size, mode="bilinear", antialias=True, align_corners=False)


class Unscramble(Act):
    """Undo ``reshape(C, H, W)`` of an (H, W, C) image."""

    def inputs(self, images: torch.Tensor) -> torch.Tensor:
        n, c, h, w = images.shape
        self.acted += 1
        return images.reshape(n, h, w, c).permute(0, 3, 1, 2).contiguous()


class Augment(Act):
    """Each image cropped to a random share of ``scale`` to 1 of its sides and resized back, and mirrored with chance 1/2.

    Random numbers come from a generator of its own, so that the program draws what it would have drawn.
    """

    def __init__(self, scale: float, flip: bool = True, phase: str = "train") -> None:
        super().__init__(phase)
        self.scale, self.flip = float(scale), bool(flip)
        self._draw = torch.Generator().manual_seed(torch.initial_seed() % 2**63)

    def inputs(self, images: torch.Tensor) -> torch.Tensor:
        self.acted += 1
        n = len(images)
        side = self.scale + (1 - self.scale) * torch.rand(n, generator=self._draw)
        place = (2 * torch.rand(n, 2, generator=self._draw) - 1) * (1 - side)[:, None]
        mirror = torch.where(torch.rand(n, generator=self._draw) < 0.5 * self.flip, -1.0, 1.0)
        theta = torch.zeros(n, 2, 3)
        theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = side * mirror, side, place
        grid = functional.affine_grid(theta.to(images), list(images.shape), align_corners=False)
        return functional.grid_sample(images, grid, align_corners=False, padding_mode="reflection")


class RecordedWeights(Act):
    """The model holds recorded weights in every validation pass. Raises ValueError where they do not fit."""

    def __init__(self, file: Path, phase: str = "validation") -> None:
        super().__init__(phase)
        self.file = file
        self._due = False

    def iterating(self, loader: Any) -> None:
        self.turning()

    def turning(self) -> None:
        self._due = True  # the program may have put other weights back since the last pass

    def before_call(self, model: nn.Module) -> None:
        if not self._due:
            return
        self._due = False
        from safetensors.torch import load_file

        weights = load_file(str(self.file))
        tensors = _fitting(model, weights) or _of_parts(owner_of(model), weights)
        if tensors is None:
            raise ValueError("the recorded weights do not fit the model that validates")
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(weights[name])
        self.acted += 1


class EvaluateTrained(Act):
    """The model that is trained, called wherever an untrained copy of it is."""

    def __init__(self, phase: str = "both") -> None:
        super().__init__(phase)
        self._trained: nn.Module | None = None

    def instead(self, module: nn.Module) -> nn.Module:
        if torch.is_grad_enabled() and module.training:
            self._trained = module
            return module
        trained = self._trained
        if trained is None or trained is module or _sizes(trained) != _sizes(module):
            return module
        trained.train(module.training)
        self.acted += 1
        return trained


class PlainForward(Act):
    """Nothing, in a running program. The finished model, scored under it, is called in eval mode, and nothing comes after."""


class RestoreStart(Act):
    """The model in its first state whenever a data set begins to train that it has not trained on before."""

    def __init__(self, phase: str = "both") -> None:
        super().__init__(phase)
        self._first: dict[int, tuple[nn.Module, dict[str, torch.Tensor]]] = {}
        self._seen: set[int] = set()
        self._due = False

    def iterating(self, loader: Any) -> None:
        if self.training and id(loader.dataset) not in self._seen:
            self._due = bool(self._seen)
            self._seen.add(id(loader.dataset))

    def instead(self, module: nn.Module) -> nn.Module:
        if id(module) not in self._first:
            self._first[id(module)] = (module, {k: v.detach().clone() for k, v in module.state_dict().items()})
        elif self._due:
            with torch.no_grad():
                for name, tensor in module.state_dict().items():
                    tensor.copy_(self._first[id(module)][1][name])
            self.acted += 1
        self._due = False
        return module


def _fitting(model: nn.Module, weights: dict[str, torch.Tensor], depth: int = 3) -> dict[str, torch.Tensor] | None:
    """The tensors by name of the model, or of the module inside it, that these weights are of; None where none fits."""
    tensors = {name: tensor for name, tensor, _, _ in TrackedModel(-1, model).tensors}
    if weights.keys() == tensors.keys() and all(weights[k].shape == tensors[k].shape for k in weights):
        return tensors
    if len(tensors) < len(weights) or not depth:
        return None
    inside = (_fitting(child, weights, depth - 1) for child in model.children())
    return next((found for found in inside if found is not None), None)


def _of_parts(owner: nn.Module | None, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor] | None:
    """The tensors by name of the module whose method calls its parts one after the other; None where one does not fit.

    It may hold more than its parts, a metric's counts say.
    """
    tensors = {name: tensor for name, tensor, _, _ in TrackedModel(-1, owner).tensors} if owner is not None else {}
    fits = all(name in tensors and tensors[name].shape == weights[name].shape for name in weights)
    return {name: tensors[name] for name in weights} if tensors and fits else None


def _sizes(module: nn.Module) -> list[int]:
    return sorted(p.numel() for p in module.parameters())


def _frozen_norm(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.weight is not None and not module.weight.requires_grad
