"""Replays the features of a frozen part in eval state: what one arm computed of a batch, another reads.

A model divides into a frozen part and what is trained behind it. Where the frozen part is a pure function of the batch
(no random number drawn, no buffer moved), the input of the first trained module is stored under a digest of the batch, of
every frozen tensor, of the modes and of the arithmetic in use. When the same batch comes again, in this arm or another, the
frozen modules return empty tensors of the right shape, and the first trained module is given the stored input: equal to the
last bit, since it is what the same arithmetic on the same numbers gave.

Not taken on trust: before a model is replayed for the first times, the shortened call is compared with the whole one, and a
model whose outputs differ in any bit (an output that bypasses the trained module, say) is never replayed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as module_hooks

from valgap.seams.batches import tensors_in

# How often a model's shortened call is compared with the whole one before it is believed.
VERIFIED_CALLS = 2
# Features of all arms together; beyond it nothing more is stored.
MAX_BYTES = 2 << 30
# Nothing is stored on a disk that is nearly full.
MIN_FREE_BYTES = 4 << 30

Original = Callable[..., Any]


@dataclass
class _Parts:
    """A model, divided: modules of the frozen part, modules that are trained, and the tensors that the features depend on."""

    frozen: dict[int, int] = field(default_factory=dict)  # id of a module -> its number
    trained: set[int] = field(default_factory=set)
    tensors: list[torch.Tensor] = field(default_factory=list)
    modules: list[nn.Module] = field(default_factory=list)


@dataclass
class _OpenCall:
    """A model call under way: recording what the frozen part gives, or replaying it."""

    parts: _Parts
    stored: torch.Tensor | None  # the features to replay; None: record
    outputs: list[list[Any]]  # of the frozen modules, in the order of their calls: [number, shape, stride, dtype]
    pure: Callable[[], bool]
    place: int = 0  # how many of the outputs have been given back
    feature: torch.Tensor | None = None
    inside: bool = False  # within a frozen module
    passed: bool = False  # the first trained module was reached
    sound: bool = True


class FeatureReplay:
    """The replay of one arm, on the features in ``folder``, which arms share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.replayed = 0  # model calls
        self._open: _OpenCall | None = None
        self._refused: set[tuple[int, bytes]] = set()  # models with the modes of their modules
        self._verified: dict[int, int] = {}
        self._digests: dict[int, tuple[Any, bytes]] = {}
        self._room = MAX_BYTES - sum(f.stat().st_size for f in folder.glob("*.safetensors")) if folder.is_dir() else MAX_BYTES

    def call(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], images: torch.Tensor, original: Original
    ) -> Any:
        """The outermost call of a model on ``images``, replayed where that is sure to be the same."""
        parts = self._parts(module, (args, kwargs), images)
        if parts is None:
            return original(module, *args, **kwargs)
        file = self.folder / f"{self._key(module, parts, images)}.safetensors"
        found = _load(file)
        if found is not None and self._verified.get(id(module), 0) < VERIFIED_CALLS:
            return self._verify(module, args, kwargs, parts, found, original)
        if found is not None:
            with self._opened(parts, *found):
                self.replayed += 1
                return original(module, *args, **kwargs)
        return self._record(module, args, kwargs, parts, file, original)

    def inner(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], original: Original) -> Any:
        """A call of a module within the outermost one."""
        call = self._open
        if call is None or call.passed or call.inside:
            return original(module, *args, **kwargs)
        if id(module) in call.parts.trained:
            call.passed = True
            return original(module, *self._boundary(call, args, kwargs), **kwargs)
        number = call.parts.frozen.get(id(module))
        if number is None:
            return original(module, *args, **kwargs)
        if call.stored is not None:
            known, shape, stride, dtype = call.outputs[call.place]
            if known != number:
                raise RuntimeError("the frozen modules are called in another order than when their features were stored")
            call.place += 1
            return torch.empty_strided(shape, stride, dtype=getattr(torch, dtype))
        call.inside = True
        try:
            output = original(module, *args, **kwargs)
        finally:
            call.inside = False
        if type(output) is torch.Tensor:
            name = str(output.dtype).removeprefix("torch.")
            call.outputs.append([number, list(output.shape), list(output.stride()), name])
        else:
            call.sound = False
        return output

    def _boundary(self, call: _OpenCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """The first trained module's arguments: noted, or replaced by what is stored."""
        plain = len(args) == 1 and not kwargs and type(args[0]) is torch.Tensor and not args[0].requires_grad
        if call.stored is not None:
            return (call.stored,)
        if plain and call.sound and call.pure():
            call.feature = args[0].detach().clone(memory_format=torch.preserve_format)
        return args

    # -- recording and checking ---------------------------------------------------------------

    def _record(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], parts: _Parts, file: Path, original: Original
    ) -> Any:
        with self._opened(parts, None, []) as call:
            output = original(module, *args, **kwargs)
        before = [parts.modules[number] for number, *_ in call.outputs]
        saves = any(True for m in before for _ in m.parameters())  # else the trained module is given the images themselves
        if call.feature is None or not call.sound or not saves:
            self._refused.add((id(module), _modes(module)))
        else:
            self._store(file, call.feature, call.outputs)
        return output

    def _verify(
        self,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        parts: _Parts,
        found: tuple[torch.Tensor, list[list[Any]]],
        original: Original,
    ) -> Any:
        """The whole call, and beside it, unseen by hooks and recorder, the shortened one: they must agree."""
        random_state = torch.get_rng_state()
        kept = [(b, b.clone()) for b in module.buffers()]
        short: Any = None
        try:
            with _unseen(), self._opened(parts, *found):
                short = module.forward(*args, **kwargs)
        except Exception:
            short = None
        finally:
            torch.set_rng_state(random_state)
            with torch.no_grad():
                for buffer, value in kept:
                    buffer.copy_(value)
        with self._opened(parts, None, []) as call:
            whole = original(module, *args, **kwargs)
        same_feature = call.feature is not None and torch.equal(call.feature, found[0])
        if not same_feature or not _equal(short, whole):
            self._refused.add((id(module), _modes(module)))
        self._verified[id(module)] = self._verified.get(id(module), 0) + 1
        return whole

    @contextmanager
    def _opened(self, parts: _Parts, stored: torch.Tensor | None, outputs: list[list[Any]]) -> Iterator[_OpenCall]:
        random_state = torch.get_rng_state()
        versions = [t._version for t in parts.tensors]

        def pure() -> bool:
            unmoved = versions == [t._version for t in parts.tensors]
            return unmoved and torch.equal(random_state, torch.get_rng_state())

        self._open = _OpenCall(parts, stored, outputs, pure)
        try:
            yield self._open
        finally:
            self._open = None

    # -- what may be replayed -----------------------------------------------------------------

    def _parts(self, module: nn.Module, given: Any, images: torch.Tensor) -> _Parts | None:
        """The divided model; None where replaying is out of the question."""
        if images.device.type != "cpu" or images.requires_grad or type(images) is not torch.Tensor:
            return None
        if (id(module), _modes(module)) in self._refused or sum(1 for _ in tensors_in(given)) != 1:
            return None
        parts = _Parts()
        _divide(module, parts)
        below = [m for part in parts.modules for m in _walk(part)]
        if not parts.trained or not any(p is not None for m in below for p in m._parameters.values()):
            return None
        if any(m._forward_hooks or m._forward_pre_hooks for m in below):
            return None
        return parts

    def _key(self, module: nn.Module, parts: _Parts, images: torch.Tensor) -> str:
        digest = hashlib.blake2b(self._state(module, parts), digest_size=16)
        autocast = torch.is_autocast_enabled("cpu"), str(torch.get_autocast_dtype("cpu"))
        facts = tuple(images.shape), images.stride(), str(images.dtype), torch.is_grad_enabled(), autocast
        digest.update(repr((facts, torch.get_num_threads(), torch.get_default_dtype(), torch.__version__)).encode())
        digest.update(_bytes(images))
        return digest.hexdigest()

    def _state(self, module: nn.Module, parts: _Parts) -> bytes:
        """A digest of all frozen tensors and of every mode; made anew only where one of them may have changed."""
        modes = _modes(module)
        real = [t for t in parts.tensors if t.is_floating_point() and t.numel()]
        # Versions miss what is written through ``.data``; norms do not.
        norms = torch.stack([n.double() for n in torch._foreach_norm(real)]) if real else torch.zeros(0)
        mark = (modes, tuple((t.data_ptr(), t._version) for t in parts.tensors), norms.numpy().tobytes())
        known = self._digests.get(id(module))
        if known is not None and known[0] == mark:
            return known[1]
        digest = hashlib.blake2b(modes, digest_size=16)
        for tensor in parts.tensors:
            digest.update(repr((tuple(tensor.shape), tensor.stride(), str(tensor.dtype))).encode())
            digest.update(_bytes(tensor))
        self._digests[id(module)] = (mark, digest.digest())
        return digest.digest()

    def _store(self, file: Path, feature: torch.Tensor, outputs: list[list[Any]]) -> None:
        from safetensors.torch import save_file

        size = feature.numel() * feature.element_size()
        if size > self._room or shutil.disk_usage(self.folder).free < MIN_FREE_BYTES:
            return
        self._room -= size
        half = file.with_name(f"{file.name}.{os.getpid()}")
        facts = {"stride": json.dumps(feature.stride()), "outputs": json.dumps(outputs)}
        try:
            save_file({"feature": feature.contiguous()}, str(half), facts)
            half.replace(file)
        except OSError:
            self._room = 0  # no space: the arm goes on without


def _divide(module: nn.Module, parts: _Parts, known: dict[int, tuple[bool, bool]] | None = None) -> None:
    """Sort the modules below ``module`` (and its own tensors) into frozen and trained."""
    known = {} if known is None else known
    own = [t for t in module._parameters.values() if t is not None]
    if any(p.requires_grad for p in own):
        parts.trained.add(id(module))
        return
    parts.tensors += [*own, *(b for b in module._buffers.values() if b is not None)]
    for child in dict.fromkeys(c for c in module._modules.values() if c is not None):
        some, others = _learns(child, known)
        if some and not others:
            parts.trained.add(id(child))
        elif some:
            _divide(child, parts, known)
        elif id(child) not in parts.frozen:
            parts.frozen[id(child)] = len(parts.frozen)
            parts.modules.append(child)
            for part in _walk(child):
                parts.tensors += [t for t in (*part._parameters.values(), *part._buffers.values()) if t is not None]


def _learns(module: nn.Module, known: dict[int, tuple[bool, bool]]) -> tuple[bool, bool]:
    """Whether (some, others) of the parameters of a module and below it are trained, and are not."""
    if id(module) not in known:
        learns = [p.requires_grad for p in module._parameters.values() if p is not None]
        below = [_learns(c, known) for c in module._modules.values() if c is not None]
        known[id(module)] = (any(learns) or any(s for s, _ in below), not all(learns) or any(o for _, o in below))
    return known[id(module)]


def _walk(module: nn.Module) -> Iterator[nn.Module]:
    """``module.modules()``, which names all of them and so takes ten times as long."""
    seen: set[int] = set()
    waiting = [module]
    while waiting:
        one = waiting.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [c for c in reversed(one._modules.values()) if c is not None]


def _modes(module: nn.Module) -> bytes:
    return bytes(m.training for m in _walk(module))


def _bytes(tensor: torch.Tensor) -> Any:
    flat = tensor.detach().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else b""


def _load(file: Path) -> tuple[torch.Tensor, list[list[Any]]] | None:
    """(features with their strides, outputs of the frozen modules); None where they are not stored."""
    from safetensors import safe_open

    if not file.is_file():
        return None
    with safe_open(str(file), "pt") as opened:
        facts = opened.metadata()
        plain = opened.get_tensor("feature")
    feature = torch.empty_strided(plain.shape, json.loads(facts["stride"]), dtype=plain.dtype)
    feature.copy_(plain)
    return feature, json.loads(facts["outputs"])


@contextmanager
def _unseen() -> Iterator[None]:
    """No global hook (the recorder's) sees what is called."""
    hooks = module_hooks._global_forward_pre_hooks
    kept = dict(hooks)
    hooks.clear()
    try:
        yield
    finally:
        hooks.update(kept)


def _equal(a: Any, b: Any) -> bool:
    """Whether two outputs hold the same tensors, to the last bit."""
    first, second = dict(tensors_in(a)), dict(tensors_in(b))
    return bool(first) and first.keys() == second.keys() and all(_same(first[k], second[k]) for k in first)


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and bool(torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)))
