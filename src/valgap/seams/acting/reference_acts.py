"""The reference of the loss and of the updates in the running program: what training descends on, and how it steps."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from valgap.seams.acting.act import Act
from valgap.seams.looking.batches import as_class_index, find_images, logit_heads, read_batch
from valgap.seams.looking.mixing import Source, mixed_of, source_of
from valgap.seams.looking.newness import looks_new


class _GradientInstead(Act):
    """In training the gradient at the logits of the open batch is what ``wanted`` says; no value changes.

    Args:
        classes: columns of the logits.
        gathered: backward passes before a step, over which the mean is taken.
    """

    def __init__(self, classes: int, gathered: int, phase: str) -> None:
        super().__init__(phase)
        self.classes, self.gathered = int(classes), int(gathered)
        self._backward = False
        self._hook: Any = None  # of the model call that may go on in a call of a part

    def rows(self) -> int:
        """Images of the open batch; 0 where nothing is known of them."""
        raise NotImplementedError

    def wanted(self, logits: torch.Tensor) -> torch.Tensor:
        """(N, C) float32: the gradient at these logits of the open batch."""
        raise NotImplementedError

    def returned(self, output: Any, whole: bool) -> None:
        if whole:
            self._hook = None  # that of the call before stays where it is
        rows = self.rows() if torch.is_grad_enabled() else 0
        if not rows:
            return
        heads = logit_heads(output, rows).values()
        logits = next((h for h in heads if h.requires_grad and h.ndim == 2 and h.shape[1] == self.classes), None)
        if logits is None:
            return
        if self._hook is not None:
            self._hook.remove()  # a later part made the logits
        wanted = self.wanted(logits.detach())
        used: list[bool] = []

        def instead(gradient: torch.Tensor | None) -> torch.Tensor | None:
            if not self._backward or gradient is None:
                return None  # the program asks for a gradient of its own (of its inputs, say), or the loss came by another way
            self.acted += 1
            used.append(True)
            return (wanted * (self.loss_scale / self.gathered if len(used) == 1 else 0.0)).to(gradient)

        self._hook = logits.register_hook(instead)
        # Before the recorder's own hook, so that it sees what was put there: torch calls them in the order of their insertion.
        hooks: Any = logits._backward_hooks
        for key in [k for k in hooks if k != self._hook.id]:
            hooks[key] = hooks.pop(key)

    def before_backward(self, first_since_step: bool, optimizers: Collection[torch.optim.Optimizer]) -> None:
        self._backward = True

    def after_backward(self, model: nn.Module | None) -> None:
        self._backward = False


class ReferenceLoss(_GradientInstead):
    """The gradient at the logits is that of the mean cross-entropy, whatever the program makes of them.

    Args:
        targets: by data set, the class of each position; -1 where it is not known, and the sample then has no loss.
        classes: columns of the logits.
        gathered: backward passes before a step, over which the mean is taken.
    """

    by_position = True

    def __init__(self, targets: Mapping[str, Sequence[int]], classes: int, gathered: int = 1, phase: str = "train") -> None:
        super().__init__(classes, gathered, phase)
        self.targets = {int(k): torch.from_numpy(np.asarray(v, np.int64)) for k, v in targets.items()}

    def rows(self) -> int:
        if self.drawn is None or self.drawn[0] not in self.targets:
            return 0
        positions = self.drawn[1]
        return len(positions) if all(0 <= p < len(self.targets[self.drawn[0]]) for p in positions) else 0

    def wanted(self, logits: torch.Tensor) -> torch.Tensor:
        assert self.drawn is not None
        known = self.targets[self.drawn[0]][torch.tensor(self.drawn[1])]
        return mean_cross_entropy_gradient(logits, known.to(logits.device))


class MixedTargets(_GradientInstead):
    """The loss asks of each image for the classes that it is mixed of, as much as there is of each: their mean cross-entropy.

    What an image is mixed of is read off its pixels and those of the batch that the loader gave; of a row that is no mix of two
    of these, nothing is asked.
    """

    def __init__(self, classes: int, gathered: int = 1, phase: str = "train") -> None:
        super().__init__(classes, gathered, phase)
        self._given: tuple[Source, torch.Tensor] | None = None  # of the batch that the loader gave last, with its classes
        self._asked: torch.Tensor | None = None  # (N, C) for the images at the model

    def batch(self, batch: Any) -> Any:
        loaded, images = read_batch(None, None, batch), find_images(batch)
        source = source_of(images) if images is not None else None
        known = [t for t in (as_class_index(t, loaded.size) for t in loaded.targets.values()) if t is not None]
        usable = bool(known) and bool(((known[0] >= 0) & (known[0] < self.classes)).all())
        self._given = (source, known[0].cpu()) if source is not None and usable else None
        return batch

    def inputs(self, images: torch.Tensor) -> torch.Tensor:
        self._asked = None
        mixed = mixed_of(self._given[0], images) if self._given is not None else None
        if self._given is not None and mixed is not None:
            parts, shares = mixed
            asked = torch.zeros(len(parts), self.classes, dtype=shares.dtype)
            self._asked = asked.scatter_add(1, self._given[1][parts], shares)
        return images

    def rows(self) -> int:
        return len(self._asked) if self._asked is not None else 0

    def wanted(self, logits: torch.Tensor) -> torch.Tensor:
        assert self._asked is not None
        asked = self._asked.to(logits.device)
        known = torch.isfinite(asked).all(1)
        wanted = (logits.float().softmax(1) - asked.nan_to_num().float()) / known.sum().clamp_min(1)
        return torch.where(known[:, None], wanted, torch.zeros_like(wanted))


def mean_cross_entropy_gradient(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """(N, C) float32: (p - y) / N over the samples whose target is one of the columns; the others have none."""
    known = (target >= 0) & (target < logits.shape[1])
    hot = torch.nn.functional.one_hot(target.clamp(0, logits.shape[1] - 1), logits.shape[1]).float()
    wanted = (logits.float().softmax(1) - hot) / known.sum().clamp_min(1)
    return torch.where(known[:, None], wanted, torch.zeros_like(wanted))


class ReferenceUpdate(Act):
    """Each step of the program's optimizers is one of SGD with Nesterov momentum instead, of sound length, with cosine decay.

    It moves what has a gradient: what the optimizers hold, and what of the model none of them holds. The gradient is that of
    the backward passes since the last step, before the program clips or changes it. What the program itself does to weights
    that were moved is undone before the model is called again.

    Args:
        steps: how many the program makes; the decay is over so many.
        rate: of layers as they were made.
        given_rate: of layers that began with other weights.
        momentum: of the steps.
        weight_decay: of weights, none of biases and normalisation.
        clip_norm: the largest norm of all gradients together.
        warmup_steps: at most; never more than a tenth of all.
        each_backward: a step after each backward pass, whenever the program itself steps.
    """

    def __init__(
        self,
        steps: int,
        rate: float,
        given_rate: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        clip_norm: float = 1.0,
        warmup_steps: int = 0,
        each_backward: bool = False,
        phase: str = "train",
    ) -> None:
        super().__init__(phase)
        self.each_backward = bool(each_backward)
        self.steps, self.rate, self.given_rate = max(1, int(steps)), float(rate), float(given_rate)
        self.momentum, self.weight_decay, self.clip_norm = float(momentum), float(weight_decay), float(clip_norm)
        self.warmup = min(int(warmup_steps), self.steps // 10)
        # All by id() of a parameter, which the first of them holds.
        self._known: dict[int, torch.Tensor] = {}
        self._rates: dict[int, float] = {}
        self._gradients: dict[int, torch.Tensor] = {}  # since the last step, without a GradScaler's factor
        self._average: dict[int, torch.Tensor] = {}
        self._left: dict[int, torch.Tensor] = {}  # as the last step left them
        self._owners: dict[int, int] = {}  # id() of the optimizer that holds it
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
        first = not self._owners or id(optimizer) == next(iter(self._owners.values()))
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
                self._move(parameter, gradients[id(parameter)] * min(1.0, self.clip_norm / max(norm, 1e-12)))
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
        if parameter.ndim > 1:
            gradient = gradient + self.weight_decay * parameter.float()
        average = self._average.get(id(parameter))
        average = gradient if average is None else self.momentum * average + gradient
        self._average[id(parameter)] = average
        rate = self._share() * self._rates.get(id(parameter), self.rate)
        parameter.sub_((rate * (gradient + self.momentum * average)).to(parameter))

    def _sound_rates(self, model: nn.Module) -> dict[int, float]:
        """The rate of each parameter by what its layer was before training; without given layers, one for all."""
        layers = [(m, list(m.parameters(recurse=False)), looks_new(m)) for m in model.modules()]
        given = any(new is False for _, own, new in layers if own)
        return {id(p): self.given_rate if given and not new else self.rate for _, own, new in layers for p in own}
