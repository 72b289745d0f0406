"""What the gradients at the logits of one pass said, gathered over its sampled batches."""

from __future__ import annotations

from collections import Counter

import torch

from valgap.seams.looking.batches import as_class_index
from valgap.seams.looking.logit_gradients import against_cross_entropy
from valgap.seams.looking.mixing import asked_for, told
from valgap.seams.recording.open_batch import Call, OpenBatch

SEVERAL = 3  # samples of a class, of which none has a gradient by chance


class GradientLog:
    """Stays on the gradients' device until it is asked."""

    def __init__(self) -> None:
        self._seen: list[tuple[torch.Tensor, torch.Tensor]] = []  # of each sampled batch, see ``against_cross_entropy``
        self._mix: Counter[str] = Counter()

    def add(self, batch: OpenBatch, call: Call, target: torch.Tensor | None) -> None:
        """The batch is over: its gradient at the logits of that call, held against the targets (N,)."""
        gradient, logits = call.gradient, call.logits
        if gradient is None or logits is None or batch.elsewhere:
            return
        if batch.loss_logits is not None and batch.loss_logits.shape != logits.shape:
            return  # the loss is of scores that were made of what the call returned
        compared = against_cross_entropy(gradient, logits, target)
        if compared is not None:
            self._seen.append(compared)
        if batch.mixed is None or gradient.value is None or batch.loaded is None:
            return
        asked = asked_for(gradient.value, logits)
        labels = [as_class_index(t, batch.size) for t in batch.loaded.targets.values() if not t.is_floating_point()]
        if asked is not None and len(labels) == 1 and labels[0] is not None:
            self._mix.update(told(*batch.mixed, labels[0], asked) or {})

    def mix(self) -> dict[str, float] | None:
        """The fields of MixStats; None where no mixed image was seen."""
        return dict(self._mix) or None

    def result(self) -> dict[str, float] | None:
        """The fields of GradientStats; None where no gradient was seen at the logits."""
        if not self._seen:
            return None
        rows = torch.stack([numbers for numbers, _ in self._seen]).cpu().double()
        finite = rows[torch.isfinite(rows).all(1)]
        if not len(finite):
            return None
        cosine, _, silent, over_batch = finite.mean(0).tolist()
        ratio = float(finite[:, 1].median())
        stats = {"cosine": cosine, "ratio": ratio, "silent": silent, "over_batch": over_batch, "batches": len(finite)}
        return {**stats, "unheard": self._unheard()}

    def _unheard(self) -> float:
        """Share of the samples that count, in the sampled batches, whose class has several and none with a gradient."""
        width = max(classes.shape[1] for _, classes in self._seen)
        tables = [torch.nn.functional.pad(classes, (0, width - classes.shape[1])).cpu() for _, classes in self._seen]
        counts, silent = torch.stack(tables).sum(0)
        unheard = (counts >= SEVERAL) & (silent == counts)
        return float(counts[unheard].sum() / counts.sum().clamp_min(1))
