"""What a program compares its answers with: labels that no loader gives and no loss is given, and the answers themselves.

``(model(x).argmax(1) == y).float().mean()`` over tensors shows its labels nowhere else. Where labels are known, what is held
against them is what the program takes for its answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from valgap.seams.attaching.listener import transformed
from valgap.seams.looking.batches import as_two_columns

if TYPE_CHECKING:
    from valgap.seams.attaching.hooks import Seams

NAMES = ("__eq__", "eq")


def attach_comparisons(seams: Seams) -> None:
    """Hook the comparison of tensors of whole numbers, two of one length each."""

    def make_equal(original: Any) -> Any:
        def equal(one: Any, other: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(one, other, *args, **kwargs)
            if (
                isinstance(other, torch.Tensor)
                and not torch.compiler.is_compiling()
                and seams.listener.evaluating
                and _may_be_labels(one)
                and _may_be_labels(other)
                and one.numel() == other.numel()
                and not torch._C._get_tracing_state()
                and not transformed()
            ):
                seams.tell("compared", one, other)
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


class AnswersCompared:
    """Counts of an evaluation: what the program took for its answers against the classes of the largest scores."""

    def __init__(self) -> None:
        self.images = self.differ = 0
        self.right = self.scores_right = 0  # of these images
        self.only_own = self.only_scores = 0  # right where the other is wrong

    def add(self, pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], target: torch.Tensor, answers: torch.Tensor) -> None:
        """A batch: what was compared in it, its labels (N,) and the answers by its scores (N,)."""
        against = [own for one, other in pairs if (own := beside(target, one, other)) is not None]
        if not against or any(not torch.equal(against[0], a) for a in against[1:]):
            return  # it compared its labels with nothing, or with several things: classes, other models' answers
        own = against[0]
        ours, theirs = own == target, answers == target
        self.images += len(own)
        self.differ += int((own != answers).sum())
        self.right += int(ours.sum())
        self.scores_right += int(theirs.sum())
        self.only_own += int((ours & ~theirs).sum())
        self.only_scores += int((theirs & ~ours).sum())

    def result(self) -> dict[str, int] | None:
        """The counts, as the record holds them; None where nothing was compared."""
        return dict(vars(self)) if self.images else None
