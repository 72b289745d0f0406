"""What is changed at the loss and the optimizer's step: rates, groups, gradients, schedules."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from valgap.seams.acting.act import Act


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


class OptimizerSettings(Act):
    """Other values of settings in every group that has them; ``beta1`` and ``beta2`` are those of ``betas``."""

    def __init__(self, values: dict[str, float], phase: str = "train") -> None:
        super().__init__(phase)
        self.values = dict(values)

    def before_step(self, optimizer: torch.optim.Optimizer, model: nn.Module | None) -> None:
        for group in optimizer.param_groups:
            for name, value in self.values.items():
                if name in ("beta1", "beta2") and "betas" in group:
                    pair = list(group["betas"])
                    pair[int(name[-1]) - 1] = value
                    group["betas"] = tuple(pair)
                elif name in group:
                    group[name] = value
                else:
                    continue
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


def _last_linear(model: nn.Module | None) -> nn.Linear | None:
    found = [m for m in model.modules() if isinstance(m, nn.Linear)] if model is not None else []
    return found[-1] if found else None


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


class UndoSoftmax(Act):
    """The loss is taken of log-probabilities where the program gave it probabilities."""

    def loss_input(self, value: torch.Tensor) -> torch.Tensor:
        if value.ndim != 2 or bool((value < 0).any()) or bool((value.sum(1) - 1).abs().max() > 1e-2):
            return value
        self.acted += 1
        return value.clamp_min(1e-12).log()
