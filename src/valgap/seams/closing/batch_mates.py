"""Whether a model's answers depend on the other images of a batch, or on their order."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from valgap.seams.looking.tracked import TrackedModel
from valgap.seams.looking.views import Mode, forward

# Images of a batch that is put together anew.
MATES = 32
ROUNDING = 1e-3  # of the logits' size


def batch_mate_numbers(model: TrackedModel, batches: Sequence[torch.Tensor], mode: Mode) -> dict[str, float] | str:
    """How far the logits of some images move among other batch mates, in another order, in logit std; or why that is not known.

    In the mode in which the program validates, no answer should depend on them.
    """
    parts = _parts(batches)
    if parts is None:
        return "it takes at least six validation images"
    kept_images, mates, others = parts
    half = len(kept_images)
    # What mixes neighbours shows in another order; units that are dropped by their place in the batch would, too.
    turned = mode == "eval"
    answers: list[torch.Tensor | None] = []
    for batch in ([kept_images, mates], [others, kept_images.flip(0)] if turned else [kept_images, others]):
        torch.manual_seed(0)  # the same units dropped both times
        answers.append(forward(model, torch.cat(batch), mode))
    before, after = answers
    if before is None or after is None or before.ndim != 2:
        return "the model's output holds no class scores"
    kept, moved = before[:half].float(), (after[-half:].flip(0) if turned else after[:half]).float()
    # Weights that were blown up give large logits of which little differs: then arithmetic alone moves them, by its rounding.
    difference = float((kept - moved).abs().mean())
    difference = difference if difference > ROUNDING * float(kept.abs().mean()) else 0.0
    change = difference / (float(kept.std()) or 1.0)
    return {"batch_mate_change": change, "batch_mate_n": half}


def _parts(batches: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
    """Some images, their own mates, and as many others: of the next batch, else all three of one batch."""
    first = batches[0][:MATES] if batches else torch.zeros(0)
    half = len(first) // 2
    if len(batches) > 1 and min(len(b) for b in batches[:2]) > 1:
        return first[:half], first[half:], batches[1][: len(first) - half]
    third = len(batches[0][: 3 * MATES // 2]) // 3 if batches else 0
    if third < 2:
        return None
    some = batches[0]
    return some[:third], some[third : 2 * third], some[2 * third : 3 * third]
