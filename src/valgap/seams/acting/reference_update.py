"""The reference of the updates in the running program: how far a sound optimizer goes, where the program has its own."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import nn

from valgap.seams.acting.act import Act
from valgap.seams.looking.newness import looks_new

EPSILON = 1e-8  # Kingma and Ba 2015, algorithm 1


class ReferenceUpdate(Act):
    """Each step of the program's optimizers is one of AdamW instead, of sound length, with a cosine decay.

    It moves what has a gradient: what the optimizers hold, and what of the model none of them holds. The gradient is that of
    the backward passes since the last step, before the program clips or changes it. What the program itself does to weights
    that were moved is undone before the model is called again.

    Source: Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization".

    Args:
        steps: how many batches the program steps for; the decay is over so many.
        rate: of layers as they were made.
        given_rate: of layers that began with other weights.
        betas: of the means of gradients and of their squares.
        weight_decay: of weights, none of biases and normalisation.
        clip_norm: the largest norm of all gradients together.
        warmup_steps: at most; never more than a tenth of all.
        each_backward: a step after each backward pass, whenever the program itself steps.
        ascends: the program's optimizers maximize, so that its gradients are of what is to rise.
    """

    def __init__(
        self,
        steps: int,
        rate: float,
        given_rate: float,
        betas: Sequence[float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        clip_norm: float = 1.0,
        warmup_steps: int = 0,
        each_backward: bool = False,
        ascends: bool = False,
        phase: str = "train",
    ) -> None:
        super().__init__(phase)
        self.each_backward = bool(each_backward)
        self.steps, self.rate, self.given_rate = max(1, int(steps)), float(rate), float(given_rate)
        self.betas, self.sign = (float(betas[0]), float(betas[1])), -1.0 if ascends else 1.0
        self.weight_decay, self.clip_norm = float(weight_decay), float(clip_norm)
        self.warmup = min(int(warmup_steps), self.steps // 10)
        # All by id() of a parameter, which the first of them holds.
        self._known: dict[int, torch.Tensor] = {}
        self._rates: dict[int, float] = {}
        self._gradients: dict[int, torch.Tensor] = {}  # since the last step, without a GradScaler's factor
        self._means: dict[int, tuple[int, torch.Tensor, torch.Tensor]] = {}  # moves so far, mean gradient, mean of its squares
        self._left: dict[int, torch.Tensor] = {}  # as the last step left them
        self._owners: dict[int, int] = {}  # id() of the optimizer that holds it
        self._fresh = False  # nothing has stepped since the last backward pass
        # Of a step under way: parameters with their values before it, the program's own rates, whether the decay goes by it.
        self._before: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._own: list[tuple[dict[str, Any], Any]] = []
        self._counts = False
        self._made = 0

    def instead(self, module: nn.Module) -> nn.Module:
        with torch.no_grad():
            for number, value in self._left.items():
                if not torch.equal(self._known[number], value):
                    self._known[number].copy_(value)
        return module

    def before_backward(self, first_since_step: bool, optimizers: Collection[torch.optim.Optimizer]) -> None:
        if (first_since_step or self.each_backward) and not self._before:
            self._gradients = {}
            for parameter in self._known.values():
                parameter.grad = None

    def after_backward(self, model: nn.Module | None) -> None:
        self._fresh = True
        if model is not None:
            self._known.update({id(p): p for p in model.parameters()})
        if self._before and self._gradients:
            return  # within a step, a closure asks again elsewhere
        for parameter in self._known.values():
            if parameter.grad is not None and not parameter.grad.is_sparse:
                self._gradients[id(parameter)] = parameter.grad.detach().float() / self.loss_scale
        if self.each_backward and model is not None and self._gradients and not self._before:
            self._rates = self._rates or self._sound_rates(model)
            self._step([p for p in self._known.values() if p.requires_grad], counts=True)

    def before_step(self, optimizer: torch.optim.Optimizer, model: nn.Module | None) -> None:
        first, self._fresh = self._fresh, False  # of several optimizers one counts
        held = [p for group in optimizer.param_groups for p in group["params"]]
        if model is not None and not self._rates:
            self._rates = self._sound_rates(model)
        for parameter in held:
            if self._known.setdefault(id(parameter), parameter).grad is not None and id(parameter) not in self._owners:
                # Of no model that was called on images: its first gradient is taken as the program left it.
                self._gradients.setdefault(id(parameter), parameter.grad.detach().float())
            self._owners[id(parameter)] = id(optimizer)
        others = [p for p in model.parameters() if id(p) not in self._owners] if model is not None and first else []
        self._before = [(p, p.detach().clone()) for p in (*held, *others) if p.requires_grad]
        self._own = [(group, group["lr"]) for group in optimizer.param_groups]
        self._counts = first
        for group in optimizer.param_groups:  # what the record tells is what moves the weights
            group["lr"] = self._share() * max((self._rates.get(id(p), self.rate) for p in group["params"]), default=self.rate)

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        moved, self._before = self._before, []
        with torch.no_grad():
            for parameter, start in moved:
                parameter.copy_(start)
        if not self.each_backward:
            self._step([p for p, _ in moved], self._counts)

    def _step(self, moved: Sequence[torch.Tensor], counts: bool) -> None:
        """Move those that have a gradient; ``counts``: it is one of the steps that the decay goes by."""
        gradients = {id(p): self._gradients.pop(id(p)) for p in moved if id(p) in self._gradients}
        norm = float(torch.stack([g.norm() for g in gradients.values()]).norm()) if gradients else math.nan
        if not math.isfinite(norm):
            return
        with torch.no_grad():
            for parameter in (p for p in moved if id(p) in gradients):
                self._move(parameter, gradients[id(parameter)] * (self.sign * min(1.0, self.clip_norm / max(norm, 1e-12))))
                self._left[id(parameter)] = parameter.detach().clone()
        self.acted += 1
        self._made += counts

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        for group, rate in self._own:
            group["lr"] = rate
        self._own = []

    def _share(self) -> float:
        """Of the rate in the coming step: a warm-up, then a cosine to nothing."""
        if self._made < self.warmup:
            return (self._made + 1) / self.warmup
        done = (self._made - self.warmup) / max(1, self.steps - self.warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    def _move(self, parameter: torch.Tensor, gradient: torch.Tensor) -> None:
        nothing = torch.zeros_like(gradient)
        moves, mean, squares = self._means.get(id(parameter), (0, nothing, nothing))
        one, two = self.betas
        moves, mean, squares = moves + 1, mean.lerp(gradient, 1 - one), squares.lerp(gradient.square(), 1 - two)
        self._means[id(parameter)] = moves, mean, squares
        step = (mean / (1 - one**moves)) / ((squares / (1 - two**moves)).sqrt() + EPSILON)
        rate = self._share() * self._rates.get(id(parameter), self.rate)
        if parameter.ndim > 1:
            parameter.mul_(1 - rate * self.weight_decay)
        parameter.sub_((rate * step).to(parameter))

    def _sound_rates(self, model: nn.Module) -> dict[int, float]:
        """The rate of each parameter by what its layer was before training; without given layers, one for all."""
        layers = [(m, list(m.parameters(recurse=False)), looks_new(m)) for m in model.modules()]
        given = any(new is False for _, own, new in layers if own)
        return {id(p): self.given_rate if given and not new else self.rate for _, own, new in layers for p in own}
