"""What a program's loss does to the logits: its gradient there, held against that of the mean cross-entropy."""

from __future__ import annotations

from typing import Any

import torch

# A sample whose gradient is below this share of what it should be is left out of the loss; those that are nearly right count not.
SILENT, NOTICEABLE = 0.01, 0.2
NORMAL = 1e-2  # log-sum-exp of a row of log-probabilities, in bfloat16 as well
NOTHING = 1e-4  # of the gradient's norm, that rounding leaves of a sum
# Of what a loss pulls up in a row, its target has so much (smoothing pulls at the others as well), in so many of the rows.
ALONE, MOSTLY = 0.8, 0.9


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

    def pulled_up(self) -> torch.Tensor | None:
        """(N,) the one class that the loss pulls up in each row: its target, which nothing else may have shown.

        None where rows are not of that kind: a regression, several classes at once. -1 for a row whose gradient is nothing.
        """
        own = self.value
        if own is None or own.ndim != 2 or own.shape[1] < 2:
            return None
        up = (-own).clamp_min(0)
        most, which = up.max(1)
        counts = most > 0
        alone = (most >= ALONE * up.sum(1)) & counts
        if not bool(counts.any()) or bool(alone.sum() < MOSTLY * counts.sum()):
            return None
        return torch.where(alone, which, torch.full_like(which, -1))

    def let_go(self) -> None:
        """The batch is over."""
        self._handle.remove()


def against_cross_entropy(
    gradient: LogitGradient, logits: torch.Tensor, target: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """What the gradient is, against that of the mean cross-entropy; both on the logits' device.

    Returns:
        (4,) cosine, ratio of norms, share of samples without gradient, whether the loss is normalised over the batch: then it
        is columns that sum to nothing, not rows; and (2, C): of each class the samples that count, and those without gradient.
    """
    own = gradient.value
    if own is None or target is None or own.shape != logits.shape or own.ndim != 2 or target.shape != own.shape[:1]:
        return None
    target = target.to(own.device)
    single = own.shape[1] == 1  # of two classes, one score: how likely the second is
    classes = 2 if single else own.shape[1]
    known = (target >= 0) & (target < classes)
    share = logits.float().sigmoid() if single else logits.float().softmax(1)
    # Log-probabilities hang together: what a loss does to them it does to the scores before their normalisation.
    normal = (logits.float().logsumexp(1).abs() < NORMAL).all() & (not single)
    own = torch.where(normal, own - share * own.sum(1, keepdim=True), own)
    every = torch.nn.functional.one_hot(target.clamp(0, classes - 1), classes).float()
    expected = torch.where(known[:, None], share - every[:, -own.shape[1] :], torch.zeros_like(share)) / known.sum().clamp_min(1)
    # A scaled loss that overflows says nothing of its gradient: what is no number is left out by whoever reads it.
    scale = torch.as_tensor(gradient.scale, dtype=own.dtype, device=own.device)
    own = own / torch.where(torch.isfinite(scale), scale, torch.full_like(scale, torch.nan))
    norms = own.norm().clamp_min(1e-30), expected.norm().clamp_min(1e-30)
    rows, wanted = own.norm(dim=1), expected.norm(dim=1)
    counts = known & (wanted > NOTICEABLE * wanted.max())
    silent = counts & (rows < SILENT * wanted * norms[0] / norms[1])
    share_silent = silent.sum() / counts.sum().clamp_min(1)
    sums = own.sum(0).norm(), own.sum(1).norm()
    over_batch = (sums[0] < NOTHING * norms[0]) & (sums[1] > NOTICEABLE**2 * norms[0]) & (not single)
    cosine = (own * expected).sum() / (norms[0] * norms[1])
    numbers = torch.stack([cosine, norms[0] / norms[1], share_silent, over_batch.to(share_silent)])
    return numbers, torch.stack([(every * kept[:, None]).sum(0) for kept in (counts, silent)])
