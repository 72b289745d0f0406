"""Which call gave a tensor: by its memory, or by the autograd graph that leads back from it. Looks only at the open batch."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from valgap.seams.looking.batches import tensors_in

MAX_OUTPUTS = 8
# Between two modules of one model stand a few functional steps: flatten, relu, pooling, cat.
MAX_NODES = 48


class Trace:
    """The tensors that one call returned, known again as long as their memory or their graph lives."""

    def __init__(self, output: Any) -> None:
        self._storages: list[StorageWeakRef] = []
        self._nodes: list[Any] = []
        for _, tensor in itertools.islice(tensors_in(output), MAX_OUTPUTS):
            if tensor.grad_fn is not None:
                self._nodes.append(tensor.grad_fn)
            storage = _storage(tensor)
            if storage is not None:
                self._storages.append(StorageWeakRef(storage))

    def gave(self, tensor: torch.Tensor) -> bool:
        """Whether ``tensor`` is one of them, a view of one, or a few differentiable steps behind one."""
        storage = _storage(tensor)
        if storage is not None and any(s.cdata == storage._cdata and not s.expired() for s in self._storages):
            return True
        return bool(self._nodes) and _reaches(tensor.grad_fn, self._nodes)

    def forget_graph(self) -> None:
        """The graph is used up: hold it no longer."""
        self._nodes = []


def _storage(tensor: torch.Tensor) -> Any:
    """The tensor's memory; None where it has none of its own (inside a function transform, on the meta device)."""
    try:
        storage = tensor.untyped_storage()
        return storage if storage.nbytes() else None
    except (RuntimeError, NotImplementedError):
        return None


def _reaches(start: Any, wanted: Iterable[Any]) -> bool:
    """Whether the graph leads from a node back to one of ``wanted`` within a few steps."""
    if start is None:
        return False
    seen, queue = {start}, deque([start])
    while queue:
        node = queue.popleft()
        if any(node is w for w in wanted):
            return True
        for following, _ in node.next_functions:
            if following is not None and following not in seen and len(seen) < MAX_NODES:
                seen.add(following)
                queue.append(following)
    return False
