"""What a loss says of the batch at work: its logits and labels, and the call of a model that they came from."""

from __future__ import annotations

from typing import Any

import torch

from valgap.seams.looking.batches import as_class_index
from valgap.seams.recording.labels_used import label_by_loss
from valgap.seams.recording.open_batch import Call, OpenBatch


def take_loss(
    batch: OpenBatch, open_call: Call | None, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> torch.Tensor | None:
    """Take in what a loss function of torch was given: the logits that count, or None where it was no loss of this batch.

    ``open_call``: the model's call inside which it was computed.
    """
    logits = args[0] if args else kwargs.get("input")
    target = args[1] if len(args) > 1 else kwargs.get("target")
    if not isinstance(logits, torch.Tensor) or logits.ndim not in (1, 2):
        return None
    if len(logits) != batch.size:
        # Episodes: some rows are compared with what others of the batch gave.
        batch.elsewhere |= logits.requires_grad and logits.ndim == 2 and name in ("cross_entropy", "nll_loss")
        if logits.ndim == 2 and len(logits) > batch.size and batch.loss_target is None:
            label_by_loss(batch, logits, target)
        return None
    if name in ("mse_loss", "kl_div") or (logits.ndim == 2 and name == "cross_entropy" and logits.shape[1] < 2):
        return None
    if batch.loss_logits is not None:
        batch.walk.loss.calls += 1
        return None
    batch.walk.loss.add(name, logits, target, {"weight": args[2] if len(args) > 2 else None, **kwargs}, batch.number)
    index = as_class_index(target.detach(), batch.size) if isinstance(target, torch.Tensor) else None
    batch.loss_name = name
    batch.loss_logits = logits.detach().clone()
    if index is not None:
        batch.loss_target = index.clone()
    batch.loss_call = open_call if open_call is not None else _call_of(batch, logits)
    call = batch.chosen()
    if call is not None:
        call.requires_grad = call.requires_grad or logits.requires_grad
    return logits


def _call_of(batch: OpenBatch, logits: torch.Tensor) -> Call | None:
    """The call whose output went into a loss; None where that cannot be told."""
    call = batch.calls[0] if len(batch.calls) == 1 else None
    if call is None:
        call = next((c for c in reversed(batch.calls) if c.trace is not None and c.trace.gave(logits)), None)
    if call is not None and call.model.head is None:
        call.model.head = next((k for k, t in call.heads.items() if t is logits), None)
    return call
