"""What the optimizer is given for the last layer's weights, beside what the loss's gradient at the logits makes of them.

The gradient of a linear layer's weights is that of its outputs times its inputs. At a sampled step the one that the program hands
to its optimizer is held against it, where a single call of the model led to it: clipping, scaling, noise and terms that are added
between ``backward`` and ``step`` show.
"""

from __future__ import annotations

from typing import Any

import torch

# Nodes of the graph between a layer's product and its weight: a transposition, a cast.
MOST_NODES = 3


class HeadPull:
    """Watches one call at a time; all stays on its device."""

    def __init__(self) -> None:
        self._calls = 0  # that recorded gradients, since the last step
        self._open: _Pull | None = None

    def called(self, logits: torch.Tensor, sampled: bool) -> None:
        """A model has given these logits, with gradients."""
        self._calls += 1
        self._forget()
        if sampled and self._calls == 1:
            self._open = _pull_of(logits)

    def scaled(self, scale: float | torch.Tensor) -> None:
        """A backward begins, of a loss that a GradScaler has scaled by so much."""
        if self._open is not None:
            self._open.scale = scale

    def stepping(self) -> torch.Tensor | None:
        """An optimizer is about to step: (2,) cosine, ratio of norms; nan where gradients were left over, None if not known."""
        found = self._open.compared() if self._open is not None and self._calls == 1 else None
        self._calls = 0
        self._forget()
        return found

    def _forget(self) -> None:
        if self._open is not None:
            self._open.let_go()
        self._open = None


class _Pull:
    def __init__(self, logits: torch.Tensor, inputs: torch.Tensor, weight: torch.Tensor) -> None:
        self.scale: float | torch.Tensor = 1.0
        self._weight = weight
        self._inputs: torch.Tensor | None = inputs
        self._expected: torch.Tensor | None = None
        self._clean: torch.Tensor | bool = False
        self._handle: Any = logits.register_hook(self._take)

    def _take(self, gradient: torch.Tensor | None) -> None:
        if gradient is None or self._inputs is None:
            return
        if self._expected is not None:  # a second backward through the same call
            self._inputs = self._expected = None
            return
        with torch.inference_mode(False), torch.no_grad():
            self._expected = gradient.detach().float().T @ self._inputs.detach().float()
            before = self._weight.grad
            self._clean = True if before is None else (before == 0).all()

    def compared(self) -> torch.Tensor | None:
        own, expected = self._weight.grad, self._expected
        if own is None or expected is None or own.shape != expected.shape or own.is_sparse:
            return None
        with torch.no_grad():
            expected = expected / torch.as_tensor(self.scale, dtype=expected.dtype, device=expected.device)
            given = own.float()
            sizes = given.norm(), expected.norm()
            both = torch.stack([(given * expected).sum() / (sizes[0] * sizes[1]), sizes[0] / sizes[1]])
            return torch.where(torch.as_tensor(self._clean, device=both.device), both, torch.full_like(both, torch.nan))

    def let_go(self) -> None:
        self._handle.remove()


def _pull_of(logits: torch.Tensor) -> _Pull | None:
    """That of the linear layer which gave the logits (N, C); None where none of torch's own did so, last of all."""
    node: Any = logits.grad_fn
    kind = type(node).__name__
    if logits.ndim != 2 or kind not in ("AddmmBackward0", "MmBackward0"):
        return None
    try:
        inputs = node._saved_mat1 if kind == "AddmmBackward0" else node._saved_self
    except (AttributeError, RuntimeError):  # a graph that was freed, or saves its tensors in another way
        return None
    following: Any = node.next_functions[-1][0]
    for _ in range(MOST_NODES):
        weight = getattr(following, "variable", None)
        if weight is not None:
            fits = isinstance(inputs, torch.Tensor) and tuple(weight.shape) == (logits.shape[1], inputs.shape[1])
            return _Pull(logits, inputs, weight) if fits else None
        if following is None or len(following.next_functions) != 1:
            return None
        following = following.next_functions[0][0]
    return None
