"""Which images of a loader's batch each image at the model is mixed of, and whose classes the loss asks for it.

Mixup, cutmix and their kin are written by hand in many loops. Which images are in a mixed one, and how much of each, can be read
off its pixels; which classes are asked for, and how much of each, off the gradient at the logits: that of cross-entropy is
(p - t) times one number. Where both are known, no label, no file and no network is needed to see that they differ.

Source: Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization"; Yun et al. 2019, "CutMix".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

# Values of an image that are laid beside those of others, and images of a batch.
VALUES, MOST_IMAGES = 2048, 256
# Of a mixed image's values, so much is explained by its two parts; a smaller share of the second one is no mix.
EXPLAINED, LEAST_SHARE = 0.9, 0.05
# Of the values of a pasted image, so many are the one's or the other's, to this share of their spread.
PASTED, SAME = 0.9, 0.05
# Of the ratios of probability and gradient, half lie within this share of the median, where the loss is a cross-entropy.
SPREAD = 0.3
ROUNDING = 0.02  # of what is asked for, from 0 to 1
FEW = 4  # mixed images that say something
# One part is larger than the other, and both are large, by this share; asked for is less than this share of a part's own.
APART, UNHEARD = 0.2, 0.25
OF_TWO = 0.75  # of what is asked for, two classes have so much, where the targets are mixed as the images are


@dataclass(frozen=True)
class Source:
    """Some values of each image that a loader handed out, (N, V), and the shape of one image."""

    values: torch.Tensor
    shape: tuple[int, ...]


def source_of(images: torch.Tensor) -> Source | None:
    """What is kept of a handed batch (N, C, H, W) to tell mixes of it by; None where that would say nothing."""
    if images.ndim != 4 or not 2 <= len(images) <= MOST_IMAGES or not images.is_floating_point():
        return None
    return Source(_values(images), tuple(images.shape[1:]))


def _values(images: torch.Tensor) -> torch.Tensor:
    """(N, C, at most VALUES / C) at even distances, the same of all images."""
    flat = images.detach().flatten(2)
    step = max(1, math.ceil(flat.shape[2] * flat.shape[1] / VALUES))
    return flat[:, :, ::step].float().clone()


def mixed_of(source: Source, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Of each image (N, C, H, W) at the model the two that it is made of, (N, 2), and their shares, (N, 2), on the CPU.

    A share of nan: it is not made of two images of this batch. None where the batches cannot be compared.
    """
    if images.ndim != 4 or tuple(images.shape[1:]) != source.shape or len(images) != len(source.values):
        return None
    before, after = (_standard(v.cpu().double()) for v in (source.values, _values(images)))
    n = len(before)
    gram = before @ before.T
    weights = torch.linalg.solve(gram + 1e-6 * gram.diagonal().mean() * torch.eye(n, dtype=gram.dtype), before @ after.T).T
    if not bool(torch.isfinite(weights).all()):
        return None
    most, parts = weights.clamp_min(0).topk(2, dim=1)
    one, two = before[parts[:, 0]], before[parts[:, 1]]
    shares = most / most.sum(1, keepdim=True).clamp_min(1e-9)
    rest = (after - most[:, :1] * one - most[:, 1:] * two).square().sum(1) / after.square().sum(1).clamp_min(1e-9)
    added = rest <= 1 - EXPLAINED
    pasted, own = _pasted(one, two, after)
    shares = torch.where((pasted & ~added)[:, None], own, shares)
    known = added | pasted
    shares = torch.where(known[:, None], shares, torch.full_like(shares, torch.nan))
    order = shares.nan_to_num().argsort(1, descending=True)
    return parts.gather(1, order), shares.gather(1, order)


def _standard(values: torch.Tensor) -> torch.Tensor:
    """(N, V) of (N, C, v): each channel centred on the batch and of one spread, which undoes a normalisation in between."""
    centred = values - values.mean((0, 2), keepdim=True)
    return (centred / centred.std((0, 2), keepdim=True).clamp_min(1e-9)).flatten(1)


def _pasted(one: torch.Tensor, two: torch.Tensor, after: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Whether each row is one in some places and the other elsewhere, (N,), and the shares of both, (N, 2)."""
    apart = (one - two).abs() > SAME
    near = [(after - v).abs() for v in (one, two)]
    first = near[0] <= near[1]
    fits = torch.minimum(*near) <= SAME
    count = apart.sum(1).clamp_min(1)
    share = (first & apart).sum(1) / count
    return (fits & apart).sum(1) / count >= PASTED, torch.stack([share, 1 - share], 1)


def asked_for(gradient: torch.Tensor, logits: torch.Tensor) -> torch.Tensor | None:
    """(N, C) the targets that a cross-entropy with this gradient (N, C) at these logits was given; None where it is none."""
    if gradient.ndim != 2 or gradient.shape != logits.shape or gradient.shape[1] < 2:
        return None
    own, likely = gradient.double().cpu(), logits.double().cpu().softmax(1)
    size = own.abs().sum(1)
    if not bool(torch.isfinite(own).all()) or bool((own.sum(1).abs() > 1e-3 * size + 1e-12).any()):
        return None
    if own.shape[1] == 2:
        return _asked_of_two(own, likely)
    # Where nothing is asked for, the gradient is the probability times one number.
    down = (own > 0) & (likely > 0.1 / own.shape[1])
    if int(down.sum()) < FEW:
        return None
    ratios = likely[down] / own[down]
    low, scale, high = ratios.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.double)).tolist()
    if high - low > 2 * SPREAD * scale:
        return None
    asked: torch.Tensor = likely - scale * own
    return asked


def _asked_of_two(own: torch.Tensor, likely: torch.Tensor) -> torch.Tensor | None:
    """The same of two classes, of which a mix asks for both: there the number can only be that of a mean over the batch."""
    asked = likely - len(own) * own
    return asked if float(asked.min()) >= -ROUNDING and float(asked.max()) <= 1 + ROUNDING else None


def told(parts: torch.Tensor, shares: torch.Tensor, target: torch.Tensor, asked: torch.Tensor) -> dict[str, float] | None:
    """The fields of MixStats, of one batch; None where few of its images are mixed of two classes.

    ``target`` (N,): the class of each image that the loader gave; ``asked`` (N, C): see ``asked_for``.
    """
    target = target.cpu().long()
    if target.shape != (len(parts),) or int(target.min()) < 0 or int(target.max()) >= asked.shape[1]:
        return None
    classes = target[parts]
    # What a teacher asks for is spread over classes, and no matter of the mix.
    few = asked.topk(2, dim=1).values.sum(1) >= OF_TWO
    mixed = (shares[:, 1] >= LEAST_SHARE) & (classes[:, 0] != classes[:, 1]) & few
    if int(mixed.sum()) < FEW:
        return None
    wanted, shares = asked.gather(1, classes)[mixed], shares[mixed]
    neither = asked[mixed].clamp_min(0).sum(1) - wanted.clamp_min(0).sum(1)
    uneven, large = shares[:, 0] - shares[:, 1] >= APART, shares[:, 1] >= APART
    return {
        "images": float(mixed.sum()),
        "neither": float(neither.clamp(0, 1).sum()),
        "uneven": float(uneven.sum()),
        "reversed": float((uneven & (wanted[:, 0] < wanted[:, 1])).sum()),
        "large": float(large.sum()),
        "single": float((large & (wanted[:, 1] < UNHEARD * shares[:, 1])).sum()),
    }
