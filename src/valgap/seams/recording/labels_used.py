"""The labels that a program used: those of its loss, those that it compared its answers with, else those of its loader."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from valgap.seams.attaching.comparing import beside, predictions
from valgap.seams.looking.batches import as_class_index

if TYPE_CHECKING:
    from valgap.seams.recording.open_batch import OpenBatch

# The loss's target is looked for among the batch's tensors in so many batches of a pass: comparing waits for the device.
KEY_BATCHES = 4
MAX_COMPARED = 4  # of a batch: what compares more looks at parts of it


def targets_of(batch: OpenBatch, dataset: int, keys: dict[int, str]) -> torch.Tensor | None:
    """(N,) class indices of a finished batch; ``keys``, by data set, learns which tensor of a loader's batches holds them."""
    if batch.loss_target is not None:
        _learn_key(batch, batch.loss_target, dataset, keys)
    used = batch.target
    if used is not None:
        return used
    candidates = batch.targets
    key: str | None = keys.get(dataset, keys.get(-1))
    if key not in candidates:
        whole = [k for k, t in candidates.items() if not t.is_floating_point()] or list(candidates)
        key = whole[0] if whole else None
    return as_class_index(candidates[key], batch.size) if key is not None else None


def _learn_key(batch: OpenBatch, used: torch.Tensor, dataset: int, keys: dict[int, str]) -> None:
    if dataset in keys or len(batch.targets) < 2 or batch.number >= KEY_BATCHES:
        return
    for name, tensor in batch.targets.items():
        own = as_class_index(tensor, batch.size)
        if own is not None and torch.equal(own.cpu(), used.cpu()):
            keys[dataset] = keys[-1] = name
            return


def label_by_loss(batch: OpenBatch, scores: torch.Tensor, target: Any) -> None:
    """Take the targets of a loss that is computed on the answers to all batches at once, ``batch`` the last of them."""
    index = as_class_index(target.detach(), len(scores)) if isinstance(target, torch.Tensor) else None
    if index is None or batch.walk.size_with(batch) != len(scores):
        return
    answered, own = scores.detach().argmax(1), batch.walk.scores(batch)
    if any(s.shape == scores.shape and torch.equal(s.argmax(1), answered) for s in own):  # else it is the loss of something else
        batch.walk.label(batch, index.clone())


def compare(batch: OpenBatch, one: torch.Tensor, other: torch.Tensor) -> None:
    """The program held these (N,) against each other: one of them may be its answers to the batch, or to all so far."""
    if len(one) == batch.size:
        if len(batch.compared) < MAX_COMPARED:
            batch.compared.append((one.long().clone(), other.long().clone()))
        return
    if len(one) < batch.size or batch.target is not None or batch.targets or batch.walk.size_with(batch) != len(one):
        return
    for answers in map(predictions, batch.walk.scores(batch)):
        index = beside(answers, one, other)
        if index is not None:
            batch.walk.label(batch, index.clone())
            return
