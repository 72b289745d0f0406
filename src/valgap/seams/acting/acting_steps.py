"""The changes of gradients and steps in a program that is being re-run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import optimizer as optimizer_hooks

if TYPE_CHECKING:
    from valgap.seams.acting.acting import Acting

Patch = Callable[[Any, str, Callable[[Any], Any]], None]


class ActingSteps:
    """Tells the interventions at work of each backward and each step."""

    def __init__(self, acting: Acting) -> None:
        self.acting = acting
        self._stepped: dict[int, torch.optim.Optimizer] = {}
        self._first_backward = True
        self._scale = 1.0  # of the loss that a GradScaler scaled last

    def attach(self, patch: Patch, undo: list[Callable[[], None]]) -> None:
        """Inside the recorder's hooks: what is changed before a step, and after it."""
        own, acting = self, self.acting

        def before(optimizer: Any, args: Any, kwargs: Any) -> None:
            acting.note("stepped")
            for act in acting.now():
                act.before_step(optimizer, acting.model)

        def stepped(optimizer: Any, args: Any, kwargs: Any) -> None:
            for act in acting.now():
                act.stepped(optimizer)

        def make_scale(original: Any) -> Any:
            def scale(scaler: Any, outputs: Any) -> Any:
                scaled = original(scaler, outputs)
                own._scale = float(scaler.get_scale())
                return scaled

            return scale

        undo.append(optimizer_hooks.register_optimizer_step_pre_hook(before).remove)
        undo.append(optimizer_hooks.register_optimizer_step_post_hook(stepped).remove)
        patch(torch.amp.GradScaler, "scale", make_scale)

    def attach_outside(self, patch: Patch, undo: list[Callable[[], None]]) -> None:
        """Outside of them: gradients, and what a step has become."""
        own, acting = self, self.acting

        def after(optimizer: Any, args: Any, kwargs: Any) -> None:
            for act in acting.now():
                act.after_step(optimizer)
            acting.learns()
            own._stepped[id(optimizer)] = optimizer
            own._first_backward = True

        patch(torch.autograd, "backward", self._make_backward)
        patch(torch.autograd, "grad", self._make_grad)
        undo.append(optimizer_hooks.register_optimizer_step_post_hook(after).remove)

    def _make_backward(self, original: Any) -> Any:
        own, acting = self, self.acting

        def backward(*args: Any, **kwargs: Any) -> Any:
            acting.learns()
            acts = acting.now()
            for act in acts:
                act.loss_scale = own._scale
                act.before_backward(own._first_backward, own._stepped.values())
            own._first_backward, own._scale = False, 1.0
            try:
                return original(*args, **kwargs)
            finally:
                for act in acts:
                    act.after_backward(acting.model)

        return backward

    def _make_grad(self, original: Any) -> Any:
        acting = self.acting

        def grad(outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if not isinstance(inputs, torch.Tensor):
                inputs = tuple(inputs)  # it may be an iterator
            if any(isinstance(i, nn.Parameter) for i in ((inputs,) if isinstance(inputs, torch.Tensor) else inputs)):
                acting.learns()
            return original(outputs, inputs, *args, **kwargs)

        return grad
