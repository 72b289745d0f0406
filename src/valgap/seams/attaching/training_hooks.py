"""The hooks on losses, steps and state: plain functions and methods of torch, replaced by ones that tell the seams' listener."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as functional
from torch import nn
from torch.optim import optimizer as optimizer_hooks

from valgap.seams.attaching.listener import transformed

if TYPE_CHECKING:
    from valgap.seams.attaching.hooks import Seams

LOSS_FUNCTIONS = (
    "cross_entropy",
    "nll_loss",
    "binary_cross_entropy_with_logits",
    "binary_cross_entropy",
    "multi_margin_loss",
    "kl_div",
    "mse_loss",
)


def attach_losses(seams: Seams) -> None:
    """Hook the loss functions of torch.nn.functional."""
    for name in LOSS_FUNCTIONS:
        seams.patch(functional, name, functools.partial(_make_loss, seams, name))


def _make_loss(seams: Seams, name: str, original: Any) -> Any:
    def loss(*args: Any, **kwargs: Any) -> Any:
        value = original(*args, **kwargs)
        if not torch.compiler.is_compiling() and not torch._C._get_tracing_state() and not transformed():
            seams.tell("loss_computed", name, args, kwargs, value)
        return value

    return loss


def attach_steps(seams: Seams) -> None:
    """Hook backward passes, optimizers, the clearing of gradients and the scaling of losses."""

    def started(optimizer: Any, args: Any, kwargs: Any) -> None:
        closure = next(iter(args[1:]), kwargs.get("closure"))
        seams.tell("step_started", optimizer, closure is not None)

    def ended(optimizer: Any, args: Any, kwargs: Any) -> None:
        seams.tell("step_ended", optimizer)

    for handle in (
        optimizer_hooks.register_optimizer_step_pre_hook(started),
        optimizer_hooks.register_optimizer_step_post_hook(ended),
    ):
        seams.when_detached(handle.remove)

    def make_backward(original: Any) -> Any:
        def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
            if not torch.compiler.is_compiling():
                seams.tell("backward_started", tensors)
            return original(tensors, *args, **kwargs)

        return backward

    def make_grad(original: Any) -> Any:
        def grad(outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            # Gradients of a loss by parameters are a backward; a graph of them, or those by images, serve something else.
            if not isinstance(inputs, torch.Tensor):
                inputs = tuple(inputs)  # it may be an iterator
            if not torch.compiler.is_compiling() and not kwargs.get("create_graph"):
                of = (inputs,) if isinstance(inputs, torch.Tensor) else inputs
                if any(isinstance(i, nn.Parameter) for i in of):
                    seams.tell("backward_started", outputs)
            return original(outputs, inputs, *args, **kwargs)

        return grad

    def make_zero(original: Any) -> Any:
        def zero_grad(owner: Any, *args: Any, **kwargs: Any) -> Any:
            if not torch.compiler.is_compiling():
                seams.tell("gradients_zeroed")
            return original(owner, *args, **kwargs)

        return zero_grad

    def make_scale(original: Any) -> Any:
        def scale(scaler: Any, outputs: Any) -> Any:
            seams.tell("loss_scaled", outputs)
            return original(scaler, outputs)

        return scale

    seams.patch(torch.autograd, "backward", make_backward)
    seams.patch(torch.autograd, "grad", make_grad)
    seams.patch(torch.optim.Optimizer, "zero_grad", make_zero)
    seams.patch(nn.Module, "zero_grad", make_zero)
    seams.patch(torch.amp.GradScaler, "scale", make_scale)


def attach_state(seams: Seams) -> None:
    """Hook the loading of weights, schedules and parallel wrappers."""

    def make_load(original: Any) -> Any:
        def load_state_dict(module: Any, state_dict: Any, strict: bool = True, *args: Any, **kwargs: Any) -> Any:
            seams.tell("weights_loading", module)
            result = original(module, state_dict, strict, *args, **kwargs)
            seams.tell("weights_loaded", module, state_dict, strict, result)
            return result

        return load_state_dict

    seams.patch(nn.Module, "load_state_dict", make_load)

    def make_schedule(original: Any) -> Any:
        def __init__(schedule: Any, *args: Any, **kwargs: Any) -> None:
            original(schedule, *args, **kwargs)
            seams.tell("schedule_made", schedule)

        return __init__

    seams.patch(torch.optim.lr_scheduler.LRScheduler, "__init__", make_schedule)
    # It is made without its base class's constructor.
    seams.patch(torch.optim.lr_scheduler.ReduceLROnPlateau, "__init__", make_schedule)

    def make_wrapper(original: Any) -> Any:
        def __init__(wrapper: Any, *args: Any, **kwargs: Any) -> None:
            original(wrapper, *args, **kwargs)
            seams.tell("wrapper_made", wrapper)

        return __init__

    seams.patch(nn.parallel.DistributedDataParallel, "__init__", make_wrapper)
