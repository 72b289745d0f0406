"""Attaches a listener to the five seams of a running program, and takes it off again.

Every hook calls the original first or last, passes on its result and its exceptions unchanged, and draws no random
number. A listener's own exception is reported to the listener and never reaches the program.

The model seam uses torch's global forward pre-hook, taken away while the outermost call runs: submodules keep
torch's fast path, and torch.compile traces a program without hooks.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules import module as module_hooks
from torch.utils.data import dataloader

from valgap.seams.attaching.comparing import attach_comparisons
from valgap.seams.attaching.listener import Listener, has_no_values, has_parameters, no_collection, plain_mode, transformed
from valgap.seams.attaching.scored import Scores
from valgap.seams.attaching.training_hooks import attach_losses, attach_state, attach_steps

# A warning names the place some calls above it. Python passes over frames of files with these two words when it counts them, so
# that a warning of torch names the place that it names without us.
UNCOUNTED = "<valgap, uncounted as importlib._bootstrap>"


class Seams:
    """The hooks of one listener. ``attach`` once, ``detach`` once."""

    def __init__(self, listener: Listener, when_forked: Callable[[], Listener | None] = lambda: None) -> None:
        self.listener = listener
        self._scores = Scores(self)
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
        attach_losses(self)
        attach_steps(self)
        attach_state(self)
        attach_comparisons(self)

    def detach(self) -> None:
        """Take all hooks off; what was patched is as it was."""
        while self._undo:
            self._undo.pop()()

    def move(self) -> None:
        """This process, a fork of the one that was listened to, goes on in its place."""
        self._pid = os.getpid()

    def when_detached(self, undo: Callable[[], None]) -> None:
        """What takes a hook off again."""
        self._undo.append(undo)

    def patch(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        """Put what ``make`` makes of a function or method in its place."""
        own = not isinstance(owner, type) or name in owner.__dict__
        original = owner.__dict__[name] if isinstance(owner, type) and own else getattr(owner, name)
        replacement = make(original)
        if callable(original):
            functools.update_wrapper(replacement, original)
        if isinstance(replacement, types.FunctionType):
            replacement.__code__ = replacement.__code__.replace(co_filename=UNCOUNTED)
        setattr(owner, name, replacement)
        self._undo.append((lambda: setattr(owner, name, original)) if own else (lambda: delattr(owner, name)))

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

    def tell(self, name: str, *args: Any) -> None:
        """Call the listener; in a data set's worker this does nothing."""
        if not self._here():
            return
        try:
            # What we keep must stay usable: tensors made in inference mode cannot be changed outside of it.
            # Nor may what we compute warn the program, or raise where it asked numpy to.
            with self._lock, plain_mode(), no_collection(), np.errstate(all="ignore"):
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
                seams.tell("iteration_started", loader, iterator)

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
                    seams.tell("iteration_started", loader, iterator)
                return result

            return _reset

        def make_next(original: Any) -> Any:
            def __next__(iterator: Any) -> Any:
                seams._enter()
                asked = time.perf_counter()
                try:
                    batch = original(iterator)
                except StopIteration:
                    seams._leave()
                    seams.tell("iteration_ended", iterator)
                    raise
                except BaseException:
                    seams._leave()
                    raise
                seams._leave()
                iterator.__dict__["_valgap_waited"] = time.perf_counter() - asked
                queue = iterator.__dict__.get("_valgap_indices")
                in_order = getattr(iterator, "_in_order", True)
                indices = queue.pop(0) if queue and in_order else None
                seams.tell("batch_loaded", iterator, indices, batch)
                return batch

            return __next__

        self.patch(base, "__init__", make_init)
        self.patch(base, "_next_index", make_next_index)
        self.patch(base, "_reset", make_reset)
        self.patch(base, "__next__", make_next)

    # -- model --------------------------------------------------------------------------------

    def _attach_model(self) -> None:
        self._arm()
        self._undo.append(self._disarm)
        self.patch(nn.Module, "compile", self._make_module_compile)
        if "torch._dynamo.eval_frame" in sys.modules:
            self.attach_compiled()

    def attach_compiled(self) -> None:
        """Hook torch.compile's wrapper module; called once torch's compiler has been imported."""
        from torch._dynamo.eval_frame import OptimizedModule

        if "__call__" in OptimizedModule.__dict__:
            # It warns when it meets a global hook, so ours must be away before it looks.
            self.patch(OptimizedModule, "__call__", self._make_outermost)

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
            self.tell("inner_returned", module, args, kwargs, inner)
            return inner
        if self._depth or elsewhere or not has_parameters(module):
            return run()
        self._scores.attach()
        self.tell("model_called", module, args, torch.is_grad_enabled())
        self._enter()
        output = None
        try:
            output = run()
        finally:
            self._leave()
        self.tell("model_returned", module, args, kwargs, output)
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
            or transformed()
            or isinstance(module, torch.jit.ScriptModule)
            or any(has_no_values(a) for a in args)
            or not has_parameters(module)
        ):
            return
        self._scores.attach()
        self.tell("model_called", module, args, torch.is_grad_enabled())
        self._enter()
        self._look_inside(module)

        def after_call(called: nn.Module, a: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            handle.remove()
            self._open_call = None
            self._look_away()
            self._leave()
            if output is not None:
                self.tell("model_returned", called, a, kwargs, output)

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
                self.tell("inner_returned", inner, args, kwargs, output)

        try:
            self._inside = module_hooks.register_module_forward_hook(returned, with_kwargs=True)
        except TypeError:  # an older torch, which tells no arguments that are given by name
            self._inside = module_hooks.register_module_forward_hook(lambda m, args, output: returned(m, args, {}, output))

    def _look_away(self) -> None:
        self._looking = False
        if self._inside is not None:
            self._inside.remove()
            # torch leaves it there, and warns of it; older ones have no such table.
            getattr(module_hooks, "_global_forward_hooks_with_kwargs", {}).pop(self._inside.id, None)
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
