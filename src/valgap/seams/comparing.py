"""What a program compares its answers with: the labels of an evaluation that no loader gives and no loss is given.

``(model(x).argmax(1) == y).float().mean()`` over tensors shows its labels nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from valgap.seams.batches import as_two_columns
from valgap.seams.listener import transformed

if TYPE_CHECKING:
    from valgap.seams.hooks import Seams

NAMES = ("__eq__", "eq")


def attach_comparisons(seams: Seams) -> None:
    """Hook the comparison of tensors of whole numbers, two of one length each."""

    def make_equal(original: Any) -> Any:
        def equal(one: Any, other: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(one, other, *args, **kwargs)
            if (
                isinstance(other, torch.Tensor)
                and not torch.compiler.is_compiling()
                and seams.listener.lacks_labels
                and _may_be_labels(one)
                and _may_be_labels(other)
                and one.numel() == other.numel()
                and not torch._C._get_tracing_state()
                and not transformed()
            ):
                seams.tell("compared", one.reshape(-1), other.reshape(-1))
            return result

        return equal

    for name in NAMES:
        seams.patch(torch.Tensor, name, make_equal)


def _may_be_labels(tensor: torch.Tensor) -> bool:
    """Whether it is one whole number, or one truth, a sample."""
    one_column = tensor.ndim == 1 or (tensor.ndim == 2 and 1 in tensor.shape)
    return one_column and not tensor.is_floating_point() and not tensor.is_complex()


def predictions(logits: torch.Tensor) -> torch.Tensor:
    """(N,) the classes that these scores, (N, C) or (N,), answer with."""
    return as_two_columns(logits, probabilities=False).argmax(1)


def beside(answers: torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor | None:
    """The one of two compared tensors (N,) that the answers (N,) were held against; None where neither is the answers."""
    one, other = one.long().to(answers.device), other.long().to(answers.device)
    if torch.equal(one, answers):
        return other
    return one if torch.equal(other, answers) else None
