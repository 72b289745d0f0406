"""What the processes of one training have to do with each other: ranks, DistributedDataParallel, what is synchronised."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from valgap.record.writer import RecordWriter
from valgap.seams.looking.tracked import TrackedModel

MAX_NAMES = 20
# Gradients of these are summed over the processes in their own backward.
PARALLEL = ("DistributedDataParallel",)
SHARDED = ("FullyShardedDataParallel", "DeepSpeedEngine")


class Ranks:
    """Writes the process's rank when it is known, and for each pass what DistributedDataParallel did."""

    def __init__(self, writer: RecordWriter) -> None:
        self.writer = writer
        self._wrappers: weakref.WeakSet[Any] = weakref.WeakSet()
        self._within: weakref.WeakKeyDictionary[Any, list[Any]] = weakref.WeakKeyDictionary()  # of each module called
        self._told: dict[str, Any] | None = None
        self._wrapping: dict[int, dict[str, Any]] = {}
        self._synced = False  # whether a call since the last step will synchronise its gradients
        self._called = False  # whether one with gradients was made at all
        self._counts: dict[str, int] = {}

    @property
    def rank(self) -> int | None:
        """As the program's own group of processes numbers this one; None where it has joined none."""
        return int(self._told["rank"]) if self._told is not None else None

    def wrapper_made(self, wrapper: Any) -> None:
        """A model was wrapped in DistributedDataParallel."""
        self._wrappers.add(wrapper)
        self._within.clear()

    def model_called(self, module: Any, grad_enabled: bool) -> None:
        """An outermost call: gradients are synchronised where it goes through a wrapper whose synchronisation is on."""
        if not grad_enabled or not self._wrappers:
            return
        self._called = True
        within = self._within.get(module)
        if within is None:
            within = self._within[module] = wrappers_in(module)
        self._count("calls")
        if within and all(w.require_backward_grad_sync for w in within):
            self._synced = True
        else:
            self._count("unsynced_calls")
        if not within:
            self._count("calls_past_wrapper")

    def stepped(self) -> None:
        """An optimizer has stepped."""
        if not self._wrappers or not self._called:
            return
        self._count("steps")
        if not self._synced:
            self._count("unsynced_steps")
        self._synced = self._called = False

    def _count(self, name: str) -> None:
        self._counts[name] = self._counts.get(name, 0) + 1

    def pass_begun(self) -> None:
        """A pass begins: by now the program has joined its group of processes, if it does at all."""
        facts = group_facts()
        if facts is not None and facts != self._told:
            self._told = facts
            self.writer.write("rank", facts)

    def pass_written(self, pass_index: int, model: TrackedModel, trained: bool) -> None:
        """A pass has been written: add what is to be said of this process's part in it."""
        if self._told is None and not self._wrappers:
            return
        device = next((str(t.device) for _, t, _, _ in model.tensors), "")
        if trained:
            facts = self._wrapping_of(model)
            if self._wrapping.get(model.id) != facts:
                self._wrapping[model.id] = facts
                self.writer.write("wrapping", facts)
        self.writer.write("rank_pass", {"pass": pass_index, "device": device, **(self._counts if trained else {})})
        if trained:
            self._counts = {}

    def _wrapping_of(self, model: TrackedModel) -> dict[str, Any]:
        around = [w for p in model.parts for w in wrappers_in(p)]
        kinds = sorted({type(m).__name__ for p in model.parts for m in _outer(p)})
        wrapped = around or [w for w in self._wrappers if model.contains(w)]
        inside = {id(p) for w in wrapped for name, p in w.module.named_parameters() if name not in _ignored(w)}
        trained = [(name, t) for name, t, is_parameter, _ in model.tensors if is_parameter and id(t) in model.optimized]
        outside = [name for name, t in trained if id(t) not in inside and t.requires_grad]
        own = {id(t) for _, t, _, _ in model.tensors}
        return {
            "model": model.id,
            "wrapper": kinds[0] if kinds else None,
            "wrapped": bool(wrapped) or any(k in SHARDED for k in kinds),
            "called_wrapper": bool(around),
            "outside": outside[:MAX_NAMES] if wrapped else [],
            "num_outside": len(outside) if wrapped else 0,
            "num_elsewhere": len(model.optimized - own - inside),
            "broadcast_buffers": bool(getattr(wrapped[0], "broadcast_buffers", False)) if wrapped else None,
            "sync_batchnorm": sum(type(m).__name__ == "SyncBatchNorm" for m in model.batchnorms),
        }


def wrappers_in(module: Any) -> list[Any]:
    """The DistributedDataParallel wrappers that a call of this module goes through, itself included."""
    if not isinstance(module, torch.nn.Module):
        return []
    return [m for m in module.modules() if type(m).__name__ in PARALLEL and hasattr(m, "require_backward_grad_sync")]


def _outer(module: Any) -> Iterator[Any]:
    """The parallel wrappers around a module, outermost first."""
    for _ in range(4):
        if type(module).__name__ in (*PARALLEL, *SHARDED, "DataParallel"):
            yield module
        inner = getattr(module, "_orig_mod", None) or getattr(module, "module", None)
        if not isinstance(inner, torch.nn.Module):
            return
        module = inner


def _ignored(wrapper: Any) -> set[str]:
    return set(getattr(wrapper, "parameters_to_ignore", ()) or ())


def group_facts() -> dict[str, Any] | None:
    """Rank and size of the default group of processes; None where the program has joined none, or is alone in it."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    size = int(distributed.get_world_size())
    if size < 2:
        return None
    return {"rank": int(distributed.get_rank()), "world_size": size, "backend": str(distributed.get_backend())}


@contextmanager
def apart() -> Iterator[None]:
    """In here the process belongs to no group: measurements made by one process must wait for no other."""
    distributed = sys.modules.get("torch.distributed")
    group = getattr(distributed, "GroupMember", None)
    if group is None or not distributed.is_available() or group.WORLD is None:  # type: ignore[union-attr]
        yield
        return
    world = group.WORLD
    group.WORLD = None
    try:
        yield
    finally:
        group.WORLD = world
