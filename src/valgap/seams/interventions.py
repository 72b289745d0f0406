"""The interventions: each changes exactly one thing at one seam of a program that is being re-run.

An intervention is named by a ``types.Intervention``; the class of that name here carries it out. ``acting.Acting`` puts
them into a program.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from valgap.seams import datasets as ds
from valgap.seams.act import Act
from valgap.seams.batches import read_batch
from valgap.seams.changes import replace_transform, without_randomness
from valgap.seams.loading import LoadWeights
from valgap.seams.tracked import TrackedModel
from valgap.types import Intervention


class Nothing(Act):
    """Does nothing: the A/A experiment."""

    def iterating(self, loader: Any) -> None:
        self.acted += 1


# -- model: modes and inputs ------------------------------------------------------------------


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


# -- loader: transforms, labels, samples ------------------------------------------------------


class FixedTransform(Act):
    """The random steps taken out of a data set's transform."""

    def __init__(self, phase: str = "validation") -> None:
        super().__init__(phase)
        self._done: set[int] = set()

    def dataset(self, dataset: Any) -> Any:
        found = ds.transform_of(dataset)
        fixed = without_randomness(found.transform) if found is not None else None
        clone = replace_transform(dataset, fixed) if fixed is not None else None
        if clone is None:
            return dataset
        self.acted += 1
        return clone

    def iterating(self, loader: Any) -> None:
        if id(loader.dataset) in self._done:
            return
        clone = self.dataset(loader.dataset)
        if clone is not loader.dataset:
            self.replaced(loader.dataset, clone)
            object.__setattr__(loader, "dataset", clone)
            self._done.add(id(clone))


class RelabelSamples(Act):
    """The samples at ``positions`` of the data set get the class indices ``targets``."""

    def __init__(self, positions: Sequence[int], targets: Sequence[int], phase: str = "train") -> None:
        super().__init__(phase)
        self.labels = {int(i): int(t) for i, t in zip(positions, targets, strict=True)}

    def iterating(self, loader: Any) -> None:
        if not isinstance(loader.dataset, Relabelled):
            clone = Relabelled(loader.dataset, self.labels)
            self.replaced(loader.dataset, clone)
            object.__setattr__(loader, "dataset", clone)
            self.acted += 1


class Relabelled(torch.utils.data.Dataset[Any]):
    """A data set in which some samples have another class index."""

    def __init__(self, dataset: Any, labels: dict[int, int]) -> None:
        self.dataset, self.labels = dataset, labels

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        item = self.dataset[index]
        target = self.labels.get(int(index))
        return item if target is None else _with_target(item, target)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "dataset":  # __getitems__ would lead past us
            raise AttributeError(name)
        return getattr(self.dataset, name)


def _with_target(item: Any, target: int) -> Any:
    """The item with its class index exchanged: the second place of a tuple, or a field with a label's name."""
    if isinstance(item, dict):
        key = next((k for k in ("label", "labels", "target", "y") if k in item), None)
        return item if key is None else {**item, key: _like(item[key], target)}
    if isinstance(item, (tuple, list)) and len(item) > 1:
        return type(item)([item[0], _like(item[1], target), *item[2:]])
    return item


def _like(old: Any, target: int) -> Any:
    return torch.full_like(old, target) if isinstance(old, torch.Tensor) else type(old)(target)


class RemapLabels(Act):
    """Target t becomes ``mapping[t]`` in the batches of a phase."""

    def __init__(self, mapping: Sequence[int], phase: str = "validation") -> None:
        super().__init__(phase)
        self.mapping = torch.tensor([int(v) for v in mapping])

    def batch(self, batch: Any) -> Any:
        for target in read_batch(None, None, batch).targets.values():
            if target.is_floating_point() or target.ndim != 1 or int(target.max()) >= len(self.mapping):
                continue
            target.copy_(self.mapping.to(target.device)[target.long()].to(target.dtype))
            self.acted += 1
            break
        return batch


class DropSamples(Act):
    """The samples at ``positions`` of the data set are not drawn."""

    def __init__(self, positions: Sequence[int], phase: str = "train") -> None:
        super().__init__(phase)
        self.positions = frozenset(int(i) for i in positions)

    def sampler(self, sampler: Any, loader: Any) -> Any:
        self.acted += 1
        return Chosen(sampler, lambda i: i not in self.positions)


class Shuffle(Act):
    """Samples drawn in random order."""

    def sampler(self, sampler: Any, loader: Any) -> Any:
        self.acted += 1
        return torch.utils.data.RandomSampler(range(len(sampler)))


class BalancedSampling(Act):
    """Every class drawn equally often, with replacement."""

    def sampler(self, sampler: Any, loader: Any) -> Any:
        parts = ds.leaves(loader.dataset)
        targets = np.full(len(loader.dataset), -1)
        for leaf in parts:
            declared = ds.targets_of(leaf.dataset)
            if declared is not None:
                targets[leaf.position] = declared[leaf.index]
        if (targets < 0).any():
            return sampler
        self.acted += 1
        counts = np.bincount(targets)
        return torch.utils.data.WeightedRandomSampler((1.0 / counts[targets]).tolist(), len(targets))


# -- step and loss ----------------------------------------------------------------------------


class AddMissingParameters(Act):
    """Trainable parameters of the model that no optimizer holds join the first optimizer's last group."""

    def before_step(self, optimizer: torch.optim.Optimizer, model: nn.Module | None) -> None:
        if model is None or self.acted:
            return
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        missing = [p for p in model.parameters() if p.requires_grad and id(p) not in held]
        if missing:
            optimizer.param_groups[-1]["params"].extend(missing)
            self.acted += 1


class ScaleRate(Act):
    """All learning rates times ``factor``, at each step; schedules keep their shape."""

    def __init__(self, factor: float, phase: str = "train") -> None:
        super().__init__(phase)
        self.factor = float(factor)
        self._kept: list[Any] = []

    def before_step(self, optimizer: torch.optim.Optimizer, model: nn.Module | None) -> None:
        self._kept = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * self.factor
        self.acted += 1

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        for group, rate in zip(optimizer.param_groups, self._kept, strict=False):
            group["lr"] = rate


class WeightDecay(Act):
    """Another weight decay in every parameter group."""

    def __init__(self, value: float, phase: str = "train") -> None:
        super().__init__(phase)
        self.value = float(value)

    def before_step(self, optimizer: torch.optim.Optimizer, model: nn.Module | None) -> None:
        for group in optimizer.param_groups:
            if "weight_decay" in group:
                group["weight_decay"] = self.value
                self.acted += 1


class Momentum(Act):
    """Another momentum in every group of SGD."""

    def __init__(self, value: float, phase: str = "train") -> None:
        super().__init__(phase)
        self.value = float(value)

    def before_step(self, optimizer: torch.optim.Optimizer, model: nn.Module | None) -> None:
        for group in optimizer.param_groups:
            if "momentum" in group:
                group["momentum"] = self.value
                self.acted += 1


class FreezeBackbone(Act):
    """Everything but the last linear layer stays as it is: no step, and BatchNorm in eval mode."""

    def before_step(self, optimizer: torch.optim.Optimizer, model: nn.Module | None) -> None:
        head = _last_linear(model)
        if model is None or head is None:
            return
        own = {id(p) for p in head.parameters()}
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if id(parameter) not in own and parameter.grad is not None:
                    parameter.grad = None
                    self.acted += 1

    def modes(self, model: nn.Module) -> list[tuple[nn.Module, bool]]:
        return [(m, False) for m in model.modules() if isinstance(m, _BatchNorm) and m.training]


class UnfreezeLast(Act):
    """The frozen weights of the last part of the network join the optimizer, at a share of its rate."""

    def __init__(self, share: float, factor: float, phase: str = "train") -> None:
        super().__init__(phase)
        self.share, self.factor = float(share), float(factor)
        self._added: list[nn.Parameter] = []
        self._done = False

    def instead(self, module: nn.Module) -> nn.Module:
        if not self._added:
            weighted = [m for m in module.modules() if isinstance(m, (nn.Conv2d, nn.Linear, _BatchNorm))]
            last = weighted[math.ceil(len(weighted) * (1 - self.share)) :]
            self._added = [p for m in last for p in m.parameters() if not p.requires_grad]
            for parameter in self._added:
                parameter.requires_grad_(True)
        return module

    def before_step(self, optimizer: torch.optim.Optimizer, model: nn.Module | None) -> None:
        if self._added and not self._done:
            rate = max(float(g["lr"]) for g in optimizer.param_groups) * self.factor
            optimizer.add_param_group({"params": self._added, "lr": rate})
            self._done = True
            self.acted += 1


class NoDropout(Act):
    """Dropout layers in eval mode."""

    def modes(self, model: nn.Module) -> list[tuple[nn.Module, bool]]:
        return [(m, False) for m in model.modules() if isinstance(m, _DropoutNd) and m.training and m.p > 0]


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


class ZeroGradients(Act):
    """Gradients are cleared before the first backward after each step."""

    def before_backward(self, first_since_step: bool, optimizers: Collection[torch.optim.Optimizer]) -> None:
        if not first_since_step:
            return
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.grad = None
                        self.acted += 1


class NoStep(Act):
    """No optimizer step in a phase: without gradients, an optimizer leaves the parameters alone."""

    def __init__(self, phase: str = "validation", datasets: Sequence[int] = ()) -> None:
        super().__init__(phase)  # the arm's roles already know the data sets

    def before_step(self, optimizer: torch.optim.Optimizer, model: nn.Module | None) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None
        self.acted += 1


class FirstBatch(Act):
    """Only the first batch of every pass is drawn."""

    def __init__(self, phase: str = "train") -> None:
        super().__init__(phase)

    def sampler(self, sampler: Any, loader: Any) -> Any:
        self.acted += 1
        return First(sampler, loader.batch_size or 1)


class RecordedWeights(Act):
    """The model holds recorded weights in every validation pass. Raises ValueError where they do not fit."""

    def __init__(self, file: Path, phase: str = "validation") -> None:
        super().__init__(phase)
        self.file = file
        self._due = False

    def iterating(self, loader: Any) -> None:
        self._due = True  # the program may have put other weights back since the last pass

    def before_call(self, model: nn.Module) -> None:
        if not self._due:
            return
        self._due = False
        from safetensors.torch import load_file

        weights = load_file(str(self.file))
        tensors = {name: tensor for name, tensor, _, _ in TrackedModel(-1, model).tensors}
        if weights.keys() != tensors.keys() or any(weights[k].shape != tensors[k].shape for k in weights):
            raise ValueError("the recorded weights do not fit the model that validates")
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(weights[name])
        self.acted += 1


class StepOnce(Act):
    """A second step of an optimizer on the same gradient finds none: the optimizer leaves the parameters alone."""

    def __init__(self, phase: str = "train") -> None:
        super().__init__(phase)
        self._used: set[int] = set()

    def before_backward(self, first_since_step: bool, optimizers: Collection[torch.optim.Optimizer]) -> None:
        self._used.clear()

    def before_step(self, optimizer: torch.optim.Optimizer, model: nn.Module | None) -> None:
        if id(optimizer) in self._used:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None
            self.acted += 1
        self._used.add(id(optimizer))


class ScheduleSteps(Act):
    """Learning-rate schedules stepped once an ``every``: "epoch" (as the next one begins) or "batch" (after the optimizer)."""

    def __init__(self, every: str, phase: str = "train") -> None:
        super().__init__("both")  # programs step schedules after validation as well
        self.every = every
        self._waiting: dict[int, Callable[[], Any]] = {}
        self._inside = False

    def schedule_step(self, schedule: Any, step: Callable[[], Any]) -> Any:
        if self._inside:
            return step()
        self._waiting[id(schedule)] = step
        self.acted += 1
        return None

    def iterating(self, loader: Any) -> None:
        if self.every == "epoch" and self.training:
            self._step()

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.every == "batch":
            self._step()

    def _step(self) -> None:
        self._inside = True
        try:
            for step in self._waiting.values():
                step()
        finally:
            self._inside = False


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


class UndoSoftmax(Act):
    """The loss is taken of log-probabilities where the program gave it probabilities."""

    def loss_input(self, value: torch.Tensor) -> torch.Tensor:
        if value.ndim != 2 or bool((value < 0).any()) or bool((value.sum(1) - 1).abs().max() > 1e-2):
            return value
        self.acted += 1
        return value.clamp_min(1e-12).log()


KINDS: dict[str, Callable[..., Act]] = {
    "nothing": Nothing,
    "eval_mode": EvalMode,
    "train_mode": TrainMode,
    "hold_batchnorm": HoldBatchNorm,
    "affine": Affine,
    "flip_channels": FlipChannels,
    "resize": Resize,
    "unscramble": Unscramble,
    "fixed_transform": FixedTransform,
    "remap_labels": RemapLabels,
    "drop_samples": DropSamples,
    "relabel_samples": RelabelSamples,
    "shuffle": Shuffle,
    "balanced_sampling": BalancedSampling,
    "load_weights": LoadWeights,
    "add_missing_parameters": AddMissingParameters,
    "scale_rate": ScaleRate,
    "weight_decay": WeightDecay,
    "zero_gradients": ZeroGradients,
    "no_step": NoStep,
    "undo_softmax": UndoSoftmax,
    "step_once": StepOnce,
    "momentum": Momentum,
    "freeze_backbone": FreezeBackbone,
    "unfreeze_last": UnfreezeLast,
    "no_dropout": NoDropout,
    "augment": Augment,
    "schedule_steps": ScheduleSteps,
    "evaluate_trained": EvaluateTrained,
    "restore_start": RestoreStart,
}


def make(intervention: Intervention) -> Act:
    """The act of this name. Raises ValueError for an unknown one."""
    if intervention.name not in KINDS:
        raise ValueError(f"no intervention is called {intervention.name!r}")
    return KINDS[intervention.name](**intervention.settings)


def without_training(weights: Path) -> list[Act]:
    """What turns a program into the evaluation of recorded weights: one batch an epoch, which moves nothing."""
    return [FirstBatch(), NoStep("train"), HoldBatchNorm("train", only_frozen=False), RecordedWeights(weights)]


class First:
    """The first ``count`` indices of a sampler."""

    def __init__(self, sampler: Any, count: int) -> None:
        self.base, self.count = sampler, count

    def __iter__(self) -> Iterator[int]:
        return itertools.islice(self.base, self.count)

    def __len__(self) -> int:
        return min(self.count, len(self.base))


class Chosen:
    """A sampler without some of its indices."""

    def __init__(self, sampler: Any, keep: Callable[[int], bool]) -> None:
        self.base, self.keep = sampler, keep

    def __iter__(self) -> Iterator[int]:
        return (i for i in self.base if self.keep(i))

    def __len__(self) -> int:
        source = getattr(self.base, "data_source", None)
        size = len(source) if source is not None else len(self.base)
        return sum(self.keep(i) for i in range(size))


def _last_linear(model: nn.Module | None) -> nn.Linear | None:
    found = [m for m in model.modules() if isinstance(m, nn.Linear)] if model is not None else []
    return found[-1] if found else None


def _sizes(module: nn.Module) -> list[int]:
    return sorted(p.numel() for p in module.parameters())


def _frozen_norm(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.weight is not None and not module.weight.requires_grad
