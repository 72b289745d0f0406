"""What is taken back between two training passes: weights that a program puts in for validation, say, and trains on from.

After each step a few numbers of two parameters are kept, on their device. Where the next pass begins with others, they tell how
much of what the last pass moved was undone.
"""

from __future__ import annotations

import torch

WATCHED = 2  # parameters: a head's, mostly, and one in the middle
KEPT_NUMBERS = 1_024


class TakenBack:
    """Watches the parameters of one optimizer at a time, from its first step on."""

    def __init__(self) -> None:
        self._optimizer: torch.optim.Optimizer | None = None
        self._watched: list[torch.Tensor] = []
        self._pass = -1
        self._first: list[torch.Tensor] = []  # their numbers when the pass began
        self._last: list[torch.Tensor] = []  # after its last step so far

    def step_started(self, optimizer: torch.optim.Optimizer, index: int) -> torch.Tensor | None:
        """A step in the pass of this index begins. In its first one: the share of the last pass's moves that is undone, a 0-d
        tensor; nan where that moved nothing. None where no pass of this optimizer came before."""
        if index == self._pass:
            return None
        self._pass = index
        now = self._numbers() if optimizer is self._optimizer else []
        if not now or any(a.shape != b.shape or a.device != b.device for a, b in zip(now, self._last, strict=True)):
            self._begin(optimizer)
            return None
        moved = torch.cat([b - a for a, b in zip(self._first, self._last, strict=True)])
        back = torch.cat([b - a for a, b in zip(now, self._last, strict=True)])
        self._first = [n.clone() for n in now]
        return torch.dot(moved, back) / torch.dot(moved, moved)

    def step_ended(self, optimizer: torch.optim.Optimizer) -> None:
        """A step has been made."""
        if optimizer is self._optimizer and self._watched:
            torch._foreach_copy_(self._last, self._numbers())

    def _begin(self, optimizer: torch.optim.Optimizer) -> None:
        learning = [p for g in optimizer.param_groups for p in g["params"] if p.requires_grad and _is_dense(p)]
        learning = [p for p in learning if p.device == learning[-1].device]  # where a network lies on several, one tells
        self._optimizer = optimizer
        self._watched = learning[:: -max(1, -(-len(learning) // WATCHED))][:WATCHED]
        self._first = [n.clone() for n in self._numbers()]
        self._last = [n.clone() for n in self._first]

    def _numbers(self) -> list[torch.Tensor]:
        return [_few(p) for p in self._watched]


def _is_dense(parameter: torch.Tensor) -> bool:
    plain = type(parameter.detach()) is torch.Tensor and parameter.is_floating_point() and parameter.numel() > 0
    return plain and (
        parameter.is_contiguous() or (parameter.ndim == 4 and parameter.is_contiguous(memory_format=torch.channels_last))
    )


def _few(parameter: torch.Tensor) -> torch.Tensor:
    """(n,) numbers of it at even distances, as they lie in memory: a view."""
    values = parameter.detach()
    count = min(values.numel(), KEPT_NUMBERS)
    return values.as_strided((count,), (values.numel() // count,))
