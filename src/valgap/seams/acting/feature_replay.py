"""Replays the features of a frozen part in eval state: what one arm computed of a batch, another reads.

A model divides into a frozen part and what is trained behind it. Where the frozen part is a pure function of the batch, of
its own tensors and of torch's random numbers, the input of the first trained module is stored under a digest of the batch, of
every frozen tensor, of the modes and of the arithmetic in use. When the same batch comes again, in this arm or another, the
frozen modules return empty tensors of the right shape, and the first trained module is given the stored input: equal to the
last bit, since it is what the same arithmetic on the same numbers gave.

A frozen part in training mode moves buffers: BatchNorm's statistics. What they are after the call follows from what they were
before it, which the digest holds, and is stored and put back like the features. So are random numbers where it draws some
(dropout): the digest then holds their state. Such batches come again in other arms of the same seed, whose treatment leaves
images and modes alone.

Not taken on trust: before a model is replayed for the first times, the shortened call is compared with the whole one, and a
model whose outputs differ in any bit (an output that bypasses the trained module, say) is never replayed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as module_hooks

from valgap.seams.acting.frozen_parts import Parts, divide, modes_of, walk
from valgap.seams.acting.shared_room import SharedRoom
from valgap.seams.looking.batches import tensors_in

# How often a model's shortened call is compared with the whole one before it is believed.
VERIFIED_CALLS = 2
# Features of all arms together; beyond it nothing more is stored.
MAX_BYTES = 2 << 30
# Buffers that a call may move, of one model: they are stored with every batch.
MOST_MOVING = 4 << 20
MOVED = "moved."  # how their names begin in a file
NAME = "features-"  # how files of features begin

Original = Callable[..., Any]


@dataclass
class _Stored:
    """What a frozen part gave of a batch."""

    feature: torch.Tensor
    outputs: list[list[Any]]  # of the frozen modules, in the order of their calls: [number, shape, stride, dtype]
    moved: dict[int, torch.Tensor]  # the buffers that the call moved, as they were after it, by their place in ``Parts.moving``
    random: torch.Tensor | None  # the state of random numbers after it, where it drew some


@dataclass
class _OpenCall:
    """A model call under way: recording what the frozen part gives, or replaying it."""

    parts: Parts
    stored: _Stored | None  # what to replay; None: record
    pure: Callable[[], bool]
    random: torch.Tensor  # the state of random numbers before the call
    outputs: list[list[Any]] = field(default_factory=list)
    before: list[torch.Tensor] = field(default_factory=list)  # copies of ``Parts.moving``
    place: int = 0  # how many of the outputs have been given back
    found: _Stored | None = None
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
        self._draws: set[tuple[int, bytes]] = set()  # models, with the modes, whose frozen part draws random numbers
        self._verified: dict[tuple[int, bytes], int] = {}
        self._digests: dict[tuple[int, bytes], tuple[Any, bytes]] = {}
        self._room = SharedRoom(folder, f"{NAME}*.safetensors", MAX_BYTES)

    def call(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], images: torch.Tensor, original: Original
    ) -> Any:
        """The outermost call of a model on ``images``, replayed where that is sure to be the same."""
        parts = self._parts(module, (args, kwargs), images)
        if parts is None:
            return original(module, *args, **kwargs)
        file = self.folder / f"{NAME}{self._key(module, parts, images)}.safetensors"
        found = _load(file)
        if found is not None and self._verified.get((id(module), modes_of(module)), 0) < VERIFIED_CALLS:
            return self._verify(module, args, kwargs, parts, found, original)
        if found is not None:
            with self._opened(parts, found):
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
            known, shape, stride, dtype = call.stored.outputs[call.place]
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
            with torch.no_grad():
                for place, value in call.stored.moved.items():
                    call.parts.moving[place].copy_(value)
            if call.stored.random is not None:
                torch.set_rng_state(call.stored.random)
            return (call.stored.feature,)
        if plain and call.sound and call.pure():
            state = torch.get_rng_state()
            drawn = None if torch.equal(state, call.random) else state
            now = call.parts.moving
            # Not by versions: BatchNorm's kernel moves its statistics without them.
            moved = {
                i: t.detach().clone() for i, (t, old) in enumerate(zip(now, call.before, strict=True)) if not torch.equal(t, old)
            }
            call.found = _Stored(args[0].detach().clone(memory_format=torch.preserve_format), call.outputs, moved, drawn)
        return args

    # -- recording and checking ---------------------------------------------------------------

    def _record(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], parts: Parts, file: Path, original: Original
    ) -> Any:
        with self._opened(parts, None) as call:
            output = original(module, *args, **kwargs)
        before = [parts.modules[number] for number, *_ in call.outputs]
        saves = any(True for m in before for _ in m.parameters())  # else the trained module is given the images themselves
        mode = (id(module), modes_of(module))
        if call.found is None or not call.sound or not saves:
            self._refused.add(mode)
        elif call.found.random is not None and mode not in self._draws:
            self._draws.add(mode)  # from now on the key holds random numbers; this one did not
        else:
            self._store(file, call.found)
        return output

    def _verify(
        self,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        parts: Parts,
        found: _Stored,
        original: Original,
    ) -> Any:
        """The whole call, and beside it, unseen by hooks and recorder, the shortened one: they must agree."""
        random_state = torch.get_rng_state()
        kept = [(b, b.clone()) for b in module.buffers()]
        short: Any = None
        try:
            with _unseen(), self._opened(parts, found):
                short = module.forward(*args, **kwargs)
        except Exception:
            short = None
        finally:
            torch.set_rng_state(random_state)
            with torch.no_grad():
                for buffer, value in kept:
                    buffer.copy_(value)
        with self._opened(parts, None) as call:
            whole = original(module, *args, **kwargs)
        mode = (id(module), modes_of(module))
        if call.found is None or not _agree(call.found, found) or not _equal(short, whole):
            self._refused.add(mode)
        self._verified[mode] = self._verified.get(mode, 0) + 1
        return whole

    @contextmanager
    def _opened(self, parts: Parts, stored: _Stored | None) -> Iterator[_OpenCall]:
        versions = [t._version for t in parts.tensors]

        def pure() -> bool:
            return versions == [t._version for t in parts.tensors]

        self._open = _OpenCall(parts, stored, pure, torch.get_rng_state())
        if stored is None:
            self._open.before = [t.detach().clone() for t in parts.moving]
        try:
            yield self._open
        finally:
            self._open = None

    # -- what may be replayed -----------------------------------------------------------------

    def _parts(self, module: nn.Module, given: Any, images: torch.Tensor) -> Parts | None:
        """The divided model; None where replaying is out of the question."""
        if images.device.type != "cpu" or images.requires_grad or type(images) is not torch.Tensor:
            return None
        if (id(module), modes_of(module)) in self._refused or sum(1 for _ in tensors_in(given)) != 1:
            return None
        parts = Parts()
        divide(module, parts)
        below = [m for part in parts.modules for m in walk(part)]
        if not parts.trained or not any(p is not None for m in below for p in m._parameters.values()):
            return None
        if sum(t.numel() * t.element_size() for t in parts.moving) > MOST_MOVING:
            return None
        if any(m._forward_hooks or m._forward_pre_hooks for m in below):
            return None
        return parts

    def _key(self, module: nn.Module, parts: Parts, images: torch.Tensor) -> str:
        digest = hashlib.blake2b(self._state(module, parts), digest_size=16)
        autocast = torch.is_autocast_enabled("cpu"), str(torch.get_autocast_dtype("cpu"))
        facts = tuple(images.shape), images.stride(), str(images.dtype), torch.is_grad_enabled(), autocast
        digest.update(repr((facts, torch.get_num_threads(), torch.get_default_dtype(), torch.__version__)).encode())
        digest.update(_bytes(images))
        if (id(module), modes_of(module)) in self._draws:
            digest.update(_bytes(torch.get_rng_state()))
        return digest.hexdigest()

    def _state(self, module: nn.Module, parts: Parts) -> bytes:
        """A digest of all frozen tensors and of every mode; of what no call moves, made anew only where it may have changed."""
        modes = modes_of(module)
        real = [t for t in parts.tensors if t.is_floating_point() and t.numel()]
        # Versions miss what is written through ``.data``; norms do not.
        norms = torch.stack([n.double() for n in torch._foreach_norm(real)]) if real else torch.zeros(0)
        mark = (tuple((t.data_ptr(), t._version) for t in parts.tensors), norms.numpy().tobytes())
        known = self._digests.get((id(module), modes))
        if known is None or known[0] != mark:
            known = self._digests[id(module), modes] = (mark, _digest(modes, parts.tensors))
        return _digest(known[1], parts.moving)

    def _store(self, file: Path, found: _Stored) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        tensors = {"feature": found.feature.contiguous(), **{f"{MOVED}{i}": t for i, t in found.moved.items()}}
        tensors |= {"random": found.random} if found.random is not None else {}
        size = sum(t.numel() * t.element_size() for t in tensors.values())
        if not self._room.takes(size):
            return
        half = file.with_name(f"{file.name}.{os.getpid()}")
        facts = {
            "stride": list(found.feature.stride()),
            "outputs": found.outputs,
            "moved": list(found.moved),
            "drawn": found.random is not None,
        }
        try:
            save_file(tensors, str(half), {k: json.dumps(v) for k, v in facts.items()})
            half.replace(file)
        except (OSError, SafetensorError):
            self._room.closed = True  # no space: the arm goes on without


def _digest(first: bytes, tensors: list[torch.Tensor]) -> bytes:
    digest = hashlib.blake2b(first, digest_size=16)
    for tensor in tensors:
        digest.update(repr((tuple(tensor.shape), tensor.stride(), str(tensor.dtype))).encode())
        digest.update(_bytes(tensor))
    return digest.digest()


def _bytes(tensor: torch.Tensor) -> Any:
    flat = tensor.detach().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else b""


def _load(file: Path) -> _Stored | None:
    """What is stored there, with its strides; None where nothing is."""
    from safetensors import safe_open

    if not file.is_file():
        return None
    with safe_open(str(file), "pt") as opened:
        facts = opened.metadata()
        plain = opened.get_tensor("feature")
        moved = {place: opened.get_tensor(f"{MOVED}{place}") for place in json.loads(facts["moved"])}
        state = opened.get_tensor("random").clone() if json.loads(facts["drawn"]) else None
    feature = torch.empty_strided(plain.shape, json.loads(facts["stride"]), dtype=plain.dtype)
    feature.copy_(plain)
    return _Stored(feature, json.loads(facts["outputs"]), moved, state)


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


def _agree(a: _Stored, b: _Stored) -> bool:
    """Whether both hold the same features, moved buffers and random numbers, to the last bit."""
    moved = a.moved.keys() == b.moved.keys() and all(_same(a.moved[k], b.moved[k]) for k in a.moved)
    drawn = torch.equal(a.random, b.random) if a.random is not None and b.random is not None else a.random is b.random
    return moved and drawn and torch.equal(a.feature, b.feature)


def _equal(a: Any, b: Any) -> bool:
    """Whether two outputs hold the same tensors, to the last bit."""
    first, second = dict(tensors_in(a)), dict(tensors_in(b))
    return bool(first) and first.keys() == second.keys() and all(_same(first[k], second[k]) for k in first)


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and bool(torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)))
