"""Tables as the record holds them: of samples, from logits and targets; of steps, from tensors that waited on their device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from valgap.seams.looking.batches import as_two_columns

SAMPLE_COLUMNS: dict[str, Any] = {
    "sample": np.int32,
    "target": np.int32,
    "prediction": np.int32,
    "loss": np.float32,
    "margin": np.float32,
    "label_prob": np.float32,
    "batch": np.int32,
    "fingerprint": np.float32,
}


def score(logits: torch.Tensor | None, target: torch.Tensor | None, n: int, loss_name: str) -> dict[str, Any]:
    """Prediction, loss, margin and label probability of each sample, arrays (N,); nan and -1 where unknown."""
    out: dict[str, Any] = {
        "target": np.full(n, -1, np.int32),
        "prediction": np.full(n, -1, np.int32),
        "loss": np.full(n, np.nan, np.float32),
        "margin": np.full(n, np.nan, np.float32),
        "label_prob": np.full(n, np.nan, np.float32),
    }
    if target is not None and target.shape == (n,):
        out["target"] = target.detach().cpu().numpy().astype(np.int32)
    if logits is None or logits.shape[0] != n:
        return out
    scores = as_two_columns(logits.cpu(), probabilities=loss_name == "binary_cross_entropy")
    out["prediction"] = scores.argmax(1).numpy().astype(np.int32)
    labels = torch.from_numpy(np.asarray(out["target"])).long()
    known = (labels >= 0) & (labels < scores.shape[1])
    if known.any():
        log_probs = scores[known].log_softmax(1)
        own = labels[known][:, None]
        picked = log_probs.gather(1, own)[:, 0]
        rest = scores[known].scatter(1, own, float("-inf")).amax(1)
        keep = known.numpy()
        out["loss"][keep] = (-picked).numpy()
        out["label_prob"][keep] = picked.exp().numpy()
        out["margin"][keep] = (scores[known].gather(1, own)[:, 0] - rest).numpy()
    return out


def numbers(values: list[torch.Tensor | None]) -> Any:
    """(S,) float32 of 0-d tensors, one transfer per device; nan for None."""
    out = np.full(len(values), np.nan, np.float32)
    places = [i for i, v in enumerate(values) if v is not None]
    if places:
        tensors = [v.detach().float().reshape(()) for v in values if v is not None]
        device = tensors[0].device
        out[places] = torch.stack([t.to(device) for t in tensors]).cpu().numpy()
    return out


def matrix(rows: list[torch.Tensor | None]) -> Any:
    """(S, G) float32 of (G,) tensors; nan for None, and where a row is shorter than the widest."""
    widest = max((len(r) for r in rows if r is not None), default=0)
    out = np.full((len(rows), widest), np.nan, np.float32)
    for i, row in enumerate(rows):
        if row is not None:
            out[i, : len(row)] = row.detach().cpu().numpy()
    return out
