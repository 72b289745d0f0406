"""Who is told what happens at the seams, and under what conditions: nothing of it may be felt by the program."""

from __future__ import annotations

import contextlib
import gc
import threading
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn


class Listener(Protocol):
    """What happens at the seams. Every method only looks."""

    @property
    def evaluating(self) -> bool: ...
    def iteration_started(self, loader: Any, iterator: Any) -> None: ...
    def batch_loaded(self, iterator: Any, indices: Any, batch: Any) -> None: ...
    def iteration_ended(self, iterator: Any) -> None: ...
    def model_called(self, module: nn.Module, args: tuple[Any, ...], grad_enabled: bool) -> None: ...
    def model_returned(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None: ...
    def looks_inside(self, module: nn.Module) -> bool: ...
    def inner_returned(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None: ...
    def loss_computed(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], value: Any) -> None: ...
    def compared(self, one: torch.Tensor, other: torch.Tensor) -> None: ...
    def scored(self, true: npt.NDArray[np.int32], predicted: npt.NDArray[np.int32]) -> None: ...
    def loss_scaled(self, loss: Any) -> None: ...
    def backward_started(self, tensors: Any) -> None: ...
    def gradients_zeroed(self) -> None: ...
    def step_started(self, optimizer: torch.optim.Optimizer, has_closure: bool) -> None: ...
    def step_ended(self, optimizer: torch.optim.Optimizer) -> None: ...
    def schedule_made(self, schedule: Any) -> None: ...
    def wrapper_made(self, wrapper: Any) -> None: ...
    def weights_loading(self, module: nn.Module) -> None: ...
    def weights_loaded(self, module: nn.Module, state: Any, strict: bool, result: Any) -> None: ...
    def failed(self, where: str, error: Exception) -> None: ...


_AS_IT_IS = contextlib.nullcontext()


def plain_mode() -> contextlib.AbstractContextManager[Any]:
    """Outside of inference mode; to leave a mode that is not on takes time as well."""
    return torch.inference_mode(False) if torch.is_inference_mode_enabled() else _AS_IT_IS


class _Held:
    """While it is open, Python looks for no garbage: what we make and drop at once would bring a search of the whole program
    forward, which in a large one takes as long as a dozen batches."""

    def __enter__(self) -> None:
        gc.disable()

    def __exit__(self, *_: object) -> None:
        gc.enable()


_HELD = _Held()


def no_collection() -> contextlib.AbstractContextManager[Any]:
    """No search for garbage, where the program has one running and no other thread that could switch it meanwhile."""
    return _HELD if gc.isenabled() and threading.active_count() == 1 else _AS_IT_IS


def has_no_values(value: Any) -> bool:
    """Whether a program only works out shapes, or traces: to look at a proxy is to write into the traced graph."""
    if isinstance(value, torch.Tensor):
        return value.is_meta or hasattr(value, "fake_mode")
    return isinstance(value, torch.fx.Proxy)


def transformed() -> bool:
    """Whether torch.func transforms what runs now (grad, vmap): its tensors hold no numbers of their own."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def has_parameters(module: Any) -> bool:
    """Whether a module can have been trained, or be trained."""
    return next(module.parameters(), None) is not None
