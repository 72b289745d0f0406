"""Whether a model's answers depend on the other images of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from valgap.seams.tracked import TrackedModel
from valgap.seams.views import Mode, forward

# Images of a batch that is put together anew.
MATES = 32


def batch_mate_numbers(model: TrackedModel, batches: Sequence[torch.Tensor], mode: Mode) -> dict[str, float] | str:
    """How far the logits of some images move among other batch mates, in logit std; or why that is not known.

    In the mode in which the program validates, no answer should depend on them.
    """
    if len(batches) < 2 or min(len(b) for b in batches[:2]) < 2:
        return "it takes two validation batches of at least two images"
    first, second = batches[0][:MATES], batches[1][:MATES]
    half = len(first) // 2
    answers: list[torch.Tensor | None] = []
    for mates in (first[half:], second[: len(first) - half]):
        torch.manual_seed(0)  # the same units dropped both times
        answers.append(forward(model, torch.cat([first[:half], mates]), mode))
    before, among_others = answers
    if before is None or among_others is None or before.ndim != 2:
        return "the model's output holds no class scores"
    kept, moved = before[:half].float(), among_others[:half].float()
    change = float((kept - moved).abs().mean()) / (float(kept.std()) or 1.0)
    return {"batch_mate_change": change, "batch_mate_n": half}
