"""Attaches a listener to the five seams of a running program, and takes it off again.

Every hook calls the original first or last, passes on its result and its exceptions unchanged, and draws no random
number. A listener's own exception is reported to the listener and never reaches the program.

The model seam uses torch's global forward pre-hook, taken away while the outermost call runs: submodules keep
torch's fast path, and torch.compile traces a program without hooks.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import sys
import threading
import types
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as functional
from torch import nn
from torch.nn.modules import module as module_hooks
from torch.optim import optimizer as optimizer_hooks
from torch.utils.data import dataloader

LOSS_FUNCTIONS = (
    "cross_entropy",
    "nll_loss",
    "binary_cross_entropy_with_logits",
    "binary_cross_entropy",
    "multi_margin_loss",
    "kl_div",
    "mse_loss",
)

# A warning names the place some calls above it. Python passes over frames of files with these two words when it counts them, so
# that a warning of torch names the place that it names without us.
UNCOUNTED = "<valgap, uncounted as importlib._bootstrap>"


class Listener(Protocol):
    """What happens at the seams. Every method only looks."""

    def iteration_started(self, loader: Any, iterator: Any) -> None: ...
    def batch_loaded(self, iterator: Any, indices: Any, batch: Any) -> None: ...
    def iteration_ended(self, iterator: Any) -> None: ...
    def model_called(self, module: nn.Module, args: tuple[Any, ...], grad_enabled: bool) -> None: ...
    def model_returned(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None: ...
    def looks_inside(self, module: nn.Module) -> bool: ...
    def inner_returned(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None: ...
    def loss_computed(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], value: Any) -> None: ...
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


class Seams:
    """The hooks of one listener. ``attach`` once, ``detach`` once."""

    def __init__(self, listener: Listener, when_forked: Callable[[], Listener | None] = lambda: None) -> None:
        self.listener = listener
        self._when_forked = when_forked
        self._refused = -1  # the process in which it gave no listener
        self._undo: list[Callable[[], None]] = []
        self._pid = os.getpid()
        self._thread = threading.get_ident()
        self._lock = threading.RLock()  # loaders may be read ahead by another thread
        self._depth = 0  # > 0 inside an outermost model call, or while a loader loads
        self._pre_hook_id: int | None = None
        # The outermost call that is open: its frame, and the hook that waits for its end.
        self._open_call: tuple[types.FrameType, Any] | None = None
        self._inside: Any = None  # the hook on every module, while the first call of a model is looked into
        self._looking = False

    # -- attaching ----------------------------------------------------------------------------

    def attach(self) -> None:
        """Put all hooks in place."""
        self._attach_loader()
        self._attach_model()
        self._attach_losses()
        self._attach_steps()
        self._attach_state()

    def detach(self) -> None:
        """Take all hooks off; what was patched is as it was."""
        while self._undo:
            self._undo.pop()()

    def move(self) -> None:
        """This process, a fork of the one that was listened to, goes on in its place."""
        self._pid = os.getpid()

    def _patch(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        original = owner.__dict__[name] if isinstance(owner, type) else getattr(owner, name)
        replacement = make(original)
        if callable(original):
            functools.update_wrapper(replacement, original)
        if isinstance(replacement, types.FunctionType):
            replacement.__code__ = replacement.__code__.replace(co_filename=UNCOUNTED)
        setattr(owner, name, replacement)
        self._undo.append(lambda: setattr(owner, name, original))

    def _here(self) -> bool:
        """Whether this process is listened to. A forked one gets a listener of its own, a data set's worker none."""
        pid = os.getpid()
        if pid == self._pid:
            return True
        if pid == self._refused:
            return False
        listener = self._when_forked() if torch.utils.data.get_worker_info() is None else None
        if listener is None:
            self._refused = pid
            return False
        self.listener, self._pid = listener, pid
        self._thread = threading.main_thread().ident or threading.get_ident()
        self._lock = threading.RLock()  # another thread of the parent may have held it
        self._depth = 0
        self._open_call = None
        if self._undo:
            self._arm()
        return True

    def _tell(self, name: str, *args: Any) -> None:
        """Call the listener; in a data set's worker this does nothing."""
        if not self._here():
            return
        try:
            # What we keep must stay usable: tensors made in inference mode cannot be changed outside of it.
            # Nor may what we compute warn the program, or raise where it asked numpy to.
            with self._lock, _plain_mode(), _no_collection(), np.errstate(all="ignore"):
                recorded = torch.is_grad_enabled()
                torch._C._set_grad_enabled(False)  # torch.no_grad() takes ten times as long
                try:
                    getattr(self.listener, name)(*args)
                finally:
                    torch._C._set_grad_enabled(recorded)
        except Exception as error:
            self.listener.failed(name, error)

    # -- loader -------------------------------------------------------------------------------

    def _attach_loader(self) -> None:
        seams = self
        base = dataloader._BaseDataLoaderIter

        def make_init(original: Any) -> Any:
            # Not DataLoader.__iter__: subclasses override it, and other libraries' loaders make these iterators themselves.
            def __init__(iterator: Any, loader: Any, *args: Any, **kwargs: Any) -> None:
                original(iterator, loader, *args, **kwargs)
                seams._recover()
                seams._tell("iteration_started", loader, iterator)

            return __init__

        def make_next_index(original: Any) -> Any:
            def _next_index(iterator: Any) -> Any:
                index = original(iterator)
                iterator.__dict__.setdefault("_valgap_indices", []).append(index)
                return index

            return _next_index

        def make_reset(original: Any) -> Any:
            def _reset(iterator: Any, loader: Any, first_iter: bool = False, *args: Any, **kwargs: Any) -> Any:
                iterator.__dict__["_valgap_indices"] = []
                result = original(iterator, loader, first_iter, *args, **kwargs)
                if not first_iter:  # workers that stay begin another walk
                    seams._recover()
                    seams._tell("iteration_started", loader, iterator)
                return result

            return _reset

        def make_next(original: Any) -> Any:
            def __next__(iterator: Any) -> Any:
                seams._enter()
                try:
                    batch = original(iterator)
                except StopIteration:
                    seams._leave()
                    seams._tell("iteration_ended", iterator)
                    raise
                except BaseException:
                    seams._leave()
                    raise
                seams._leave()
                queue = iterator.__dict__.get("_valgap_indices")
                in_order = getattr(iterator, "_in_order", True)
                indices = queue.pop(0) if queue and in_order else None
                seams._tell("batch_loaded", iterator, indices, batch)
                return batch

            return __next__

        self._patch(base, "__init__", make_init)
        self._patch(base, "_next_index", make_next_index)
        self._patch(base, "_reset", make_reset)
        self._patch(base, "__next__", make_next)

    # -- model --------------------------------------------------------------------------------

    def _attach_model(self) -> None:
        self._arm()
        self._undo.append(self._disarm)
        self._patch(nn.Module, "compile", self._make_module_compile)
        if "torch._dynamo.eval_frame" in sys.modules:
            self.attach_compiled()

    def attach_compiled(self) -> None:
        """Hook torch.compile's wrapper module; called once torch's compiler has been imported."""
        from torch._dynamo.eval_frame import OptimizedModule

        if "__call__" in OptimizedModule.__dict__:
            # It warns when it meets a global hook, so ours must be away before it looks.
            self._patch(OptimizedModule, "__call__", self._make_outermost)

    def _make_outermost(self, original: Any) -> Any:
        seams = self

        def __call__(module: Any, *args: Any, **kwargs: Any) -> Any:
            return seams._call_outermost(module, lambda: original(module, *args, **kwargs), args, kwargs)

        return __call__

    def _make_module_compile(self, original: Any) -> Any:
        seams = self

        def compile(module: Any, *args: Any, **kwargs: Any) -> Any:
            original(module, *args, **kwargs)
            compiled = module._compiled_call_impl

            def call(*a: Any, **k: Any) -> Any:
                return seams._call_outermost(module, lambda: compiled(*a, **k), a, k)

            module._compiled_call_impl = call

        return compile

    def _call_outermost(self, module: Any, run: Callable[[], Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        elsewhere = not self._here() or threading.get_ident() != self._thread
        if self._looking and not elsewhere:  # a compiled part of a module that is looked into
            inner = run()
            self._tell("inner_returned", module, args, kwargs, inner)
            return inner
        if self._depth or elsewhere or not _has_parameters(module):
            return run()
        self._tell("model_called", module, args, torch.is_grad_enabled())
        self._enter()
        output = None
        try:
            output = run()
        finally:
            self._leave()
        self._tell("model_returned", module, args, kwargs, output)
        return output

    def _arm(self) -> None:
        hooks = module_hooks._global_forward_pre_hooks
        if self._pre_hook_id is None:
            handle = module_hooks.register_module_forward_pre_hook(self._before_call)
            self._pre_hook_id = handle.id
        else:
            hooks[self._pre_hook_id] = self._before_call

    def _disarm(self) -> None:
        if self._pre_hook_id is not None:
            module_hooks._global_forward_pre_hooks.pop(self._pre_hook_id, None)

    def _enter(self) -> None:
        if threading.get_ident() != self._thread:
            return
        if self._depth == 0:
            self._disarm()
        self._depth += 1

    def _leave(self) -> None:
        if threading.get_ident() != self._thread:
            return
        self._depth = max(0, self._depth - 1)
        if self._depth == 0 and self._undo:
            self._arm()

    def _before_call(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        # The compiler follows this function, so its own test stands alone and first.
        if torch.compiler.is_compiling():
            return
        if (
            not self._here()
            or threading.get_ident() != self._thread
            or torch._C._get_tracing_state()
            or _transformed()
            or isinstance(module, torch.jit.ScriptModule)
            or any(_has_no_values(a) for a in args)
            or not _has_parameters(module)
        ):
            return
        self._tell("model_called", module, args, torch.is_grad_enabled())
        self._enter()
        self._look_inside(module)

        def after_call(called: nn.Module, a: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            handle.remove()
            self._open_call = None
            self._look_away()
            self._leave()
            if output is not None:
                self._tell("model_returned", called, a, kwargs, output)

        handle = module.register_forward_hook(after_call, with_kwargs=True, always_call=True)
        self._open_call = (sys._getframe(1), handle)

    def _look_inside(self, module: nn.Module) -> None:
        """Watch the first call of a model from within: which of its parts maps images to logits.

        A compiled part would be traced with the hook, and again without it: of those only the calls themselves are seen.
        """
        try:
            wanted = self.listener.looks_inside(module)
        except Exception as error:
            self.listener.failed("looks_inside", error)
            return
        if not wanted:
            return
        self._looking = True
        parts = list(module.modules())
        if any(type(m).__name__ == "OptimizedModule" or m._compiled_call_impl is not None for m in parts):
            return

        def returned(inner: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
            if inner is not module and threading.get_ident() == self._thread:
                self._tell("inner_returned", inner, args, kwargs, output)

        self._inside = module_hooks.register_module_forward_hook(returned, with_kwargs=True)

    def _look_away(self) -> None:
        self._looking = False
        if self._inside is not None:
            self._inside.remove()
            module_hooks._global_forward_hooks_with_kwargs.pop(self._inside.id, None)  # torch leaves it there, and warns of it
            self._inside = None

    def _recover(self) -> None:
        """Forget an outermost call that Ctrl-C cut off: torch then calls no hook."""
        if self._open_call is None or threading.get_ident() != self._thread:
            return
        frame: types.FrameType | None = sys._getframe(1)
        while frame is not None:
            if frame is self._open_call[0]:
                return  # the call is still under way, and reads a loader
            frame = frame.f_back
        self._open_call[1].remove()
        self._open_call = None
        self._look_away()
        self._depth = 0
        if self._undo:
            self._arm()

    # -- loss ---------------------------------------------------------------------------------

    def _attach_losses(self) -> None:
        for name in LOSS_FUNCTIONS:
            self._patch(functional, name, functools.partial(self._make_loss, name))

    def _make_loss(self, name: str, original: Any) -> Any:
        seams = self

        def loss(*args: Any, **kwargs: Any) -> Any:
            value = original(*args, **kwargs)
            if not torch.compiler.is_compiling() and not torch._C._get_tracing_state() and not _transformed():
                seams._tell("loss_computed", name, args, kwargs, value)
            return value

        return loss

    # -- step ---------------------------------------------------------------------------------

    def _attach_steps(self) -> None:
        seams = self

        def started(optimizer: Any, args: Any, kwargs: Any) -> None:
            closure = next(iter(args[1:]), kwargs.get("closure"))
            seams._tell("step_started", optimizer, closure is not None)

        def ended(optimizer: Any, args: Any, kwargs: Any) -> None:
            seams._tell("step_ended", optimizer)

        for handle in (
            optimizer_hooks.register_optimizer_step_pre_hook(started),
            optimizer_hooks.register_optimizer_step_post_hook(ended),
        ):
            self._undo.append(handle.remove)

        def make_backward(original: Any) -> Any:
            def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
                if not torch.compiler.is_compiling():
                    seams._tell("backward_started", tensors)
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
                        seams._tell("backward_started", outputs)
                return original(outputs, inputs, *args, **kwargs)

            return grad

        def make_zero(original: Any) -> Any:
            def zero_grad(owner: Any, *args: Any, **kwargs: Any) -> Any:
                if not torch.compiler.is_compiling():
                    seams._tell("gradients_zeroed")
                return original(owner, *args, **kwargs)

            return zero_grad

        def make_scale(original: Any) -> Any:
            def scale(scaler: Any, outputs: Any) -> Any:
                seams._tell("loss_scaled", outputs)
                return original(scaler, outputs)

            return scale

        self._patch(torch.autograd, "backward", make_backward)
        self._patch(torch.autograd, "grad", make_grad)
        self._patch(torch.optim.Optimizer, "zero_grad", make_zero)
        self._patch(nn.Module, "zero_grad", make_zero)
        self._patch(torch.amp.GradScaler, "scale", make_scale)

    # -- state --------------------------------------------------------------------------------

    def _attach_state(self) -> None:
        seams = self

        def make_load(original: Any) -> Any:
            def load_state_dict(module: Any, state_dict: Any, strict: bool = True, *args: Any, **kwargs: Any) -> Any:
                seams._tell("weights_loading", module)
                result = original(module, state_dict, strict, *args, **kwargs)
                seams._tell("weights_loaded", module, state_dict, strict, result)
                return result

            return load_state_dict

        self._patch(nn.Module, "load_state_dict", make_load)

        def make_schedule(original: Any) -> Any:
            def __init__(schedule: Any, *args: Any, **kwargs: Any) -> None:
                original(schedule, *args, **kwargs)
                seams._tell("schedule_made", schedule)

            return __init__

        self._patch(torch.optim.lr_scheduler.LRScheduler, "__init__", make_schedule)
        # It is made without its base class's constructor.
        self._patch(torch.optim.lr_scheduler.ReduceLROnPlateau, "__init__", make_schedule)

        def make_wrapper(original: Any) -> Any:
            def __init__(wrapper: Any, *args: Any, **kwargs: Any) -> None:
                original(wrapper, *args, **kwargs)
                seams._tell("wrapper_made", wrapper)

            return __init__

        self._patch(nn.parallel.DistributedDataParallel, "__init__", make_wrapper)


_AS_IT_IS = contextlib.nullcontext()


def _plain_mode() -> contextlib.AbstractContextManager[Any]:
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


def _no_collection() -> contextlib.AbstractContextManager[Any]:
    """No search for garbage, where the program has one running and no other thread that could switch it meanwhile."""
    return _HELD if gc.isenabled() and threading.active_count() == 1 else _AS_IT_IS


def _has_no_values(value: Any) -> bool:
    """Whether a program only works out shapes, or traces: to look at a proxy is to write into the traced graph."""
    if isinstance(value, torch.Tensor):
        return value.is_meta or hasattr(value, "fake_mode")
    return isinstance(value, torch.fx.Proxy)


def _transformed() -> bool:
    """Whether torch.func transforms what runs now (grad, vmap): its tensors hold no numbers of their own."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def _has_parameters(module: Any) -> bool:
    return next(module.parameters(), None) is not None
