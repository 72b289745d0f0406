"""What a program's loss does to the logits: its gradient there, held against that of the mean cross-entropy."""

from __future__ import annotations

from typing import Any

import torch

# A sample whose gradient is below this share of what it should be is left out of the loss; those that are nearly right count not.
SILENT, NOTICEABLE = 0.01, 0.2


class LogitGradient:
    """Waits for the gradient of one batch's logits. The hook returns nothing, so that nothing changes."""

    def __init__(self, logits: torch.Tensor) -> None:
        self.value: torch.Tensor | None = None
        self.scale: float | torch.Tensor = 1.0  # of the loss that this gradient comes from, by a GradScaler
        self._handle: Any = logits.register_hook(self._take)

    def _take(self, gradient: torch.Tensor | None) -> None:
        if gradient is None:  # the loss came by another way: a wrapper hands on every output together
            return
        with torch.inference_mode(False), torch.no_grad():
            own = gradient.detach().float()
            self.value = own.clone() if self.value is None else self.value + own

    def let_go(self) -> None:
        """The batch is over."""
        self._handle.remove()


def against_cross_entropy(gradient: LogitGradient, logits: torch.Tensor, target: torch.Tensor | None) -> torch.Tensor | None:
    """(cosine, ratio of norms, share of samples without gradient), against the mean cross-entropy; (3,) on the logits' device."""
    own = gradient.value
    if own is None or target is None or own.shape != logits.shape or own.ndim != 2 or target.shape != own.shape[:1]:
        return None
    target = target.to(own.device)
    single = own.shape[1] == 1  # of two classes, one score: how likely the second is
    classes = 2 if single else own.shape[1]
    known = (target >= 0) & (target < classes)
    share = logits.float().sigmoid() if single else logits.float().softmax(1)
    hot = torch.nn.functional.one_hot(target.clamp(0, classes - 1), classes)[:, -own.shape[1] :].float()
    expected = torch.where(known[:, None], share - hot, torch.zeros_like(share)) / known.sum().clamp_min(1)
    own = own / gradient.scale
    norms = own.norm().clamp_min(1e-30), expected.norm().clamp_min(1e-30)
    rows, wanted = own.norm(dim=1), expected.norm(dim=1)
    counts = known & (wanted > NOTICEABLE * wanted.max())
    silent = (counts & (rows < SILENT * wanted * norms[0] / norms[1])).sum() / counts.sum().clamp_min(1)
    return torch.stack([(own * expected).sum() / (norms[0] * norms[1]), norms[0] / norms[1], silent])
