"""Names for images by what they hold: equal images have equal numbers, bit by bit, in every pass and every process."""

from __future__ import annotations

import torch

# Values of each image that are looked at, at least (fewer where it has fewer).
LOOKED_AT = 2048
# Odd 64-bit constants (the golden ratio, and those of splitmix64); products wrap around.
STEP, MIX, FINISH = -7046029254386353131, -4658895280553007687, -7723592293110705685


def content_keys(images: torch.Tensor) -> torch.Tensor:
    """(N,) int64: a hash of each image of (N, ...), on its device. Exact: it does not depend on the batch around it."""
    plain = images.detach().as_subclass(torch.Tensor)
    count = max(1, plain[0].numel()) if len(plain) else 1
    if plain.ndim == 4 and count > 2 * LOOKED_AT:
        step = max(1, int((count / LOOKED_AT) ** 0.5))
        plain = plain[:, :, ::step, ::step]
    bits = _as_integers(plain.reshape(len(plain), -1).contiguous())
    place = torch.arange(bits.shape[1], dtype=torch.int64, device=bits.device) * STEP
    mixed = (bits ^ place) * MIX
    return ((mixed ^ (mixed >> 29)) * FINISH).sum(1)


def _as_integers(values: torch.Tensor) -> torch.Tensor:
    if values.is_complex():
        values = torch.view_as_real(values).flatten(1)
    if values.is_floating_point():
        values = values.view({2: torch.int16, 4: torch.int32, 8: torch.int64}.get(values.element_size(), torch.uint8))
    return values.to(torch.int64)


def content_name(key: int) -> str:
    """The name of a sample that has no file and no place: ``content[0f3a...]``."""
    return f"content[{key & 0xFFFFFFFFFFFFFFFF:016x}]"


def are_akin(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two batches show the same images, possibly flipped, turned or moved to another device or type."""
    if first.shape[0] != second.shape[0] or first[0].numel() != second[0].numel():
        return False
    return bool(torch.allclose(_moments(first), _moments(second), rtol=1e-3, atol=1e-5))


def _moments(images: torch.Tensor) -> torch.Tensor:
    """(2, N) on the CPU: mean and mean magnitude of each image."""
    flat = images.detach().as_subclass(torch.Tensor).reshape(len(images), -1).double()
    return torch.stack([flat.mean(1), flat.abs().mean(1)]).cpu()
