"""Depthwise convolutions on maps smaller than their kernel, as matrix products.

On processors the library's own gradient of a 5 x 5 depthwise kernel on 3 x 3 maps (the last blocks of an EfficientNet at 96 px)
takes ten times as long as this, and most of the training step.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import nn


def quicken_depthwise(module: nn.Module) -> None:
    """Let the depthwise convolutions below ``module`` learn by matrix products where their maps are small enough.

    The results differ from the convolution's by rounding alone; without gradients the convolution itself is called.
    """
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d) and _is_plain_depthwise(conv):
            conv.forward = types.MethodType(_forward, conv)  # type: ignore[method-assign]


def _is_plain_depthwise(conv: nn.Conv2d) -> bool:
    side = conv.kernel_size[0]
    return (
        conv.groups == conv.in_channels == conv.out_channels
        and conv.kernel_size == (side, side)
        and conv.padding == (side // 2, side // 2)
        and conv.padding_mode == "zeros"
        and conv.stride == conv.dilation == (1, 1)
        and side > 3
        and side % 2 == 1
    )


def _forward(self: nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
    reach = self.kernel_size[0] // 2
    learns = torch.is_grad_enabled() and self.weight.requires_grad
    exact = images.device.type == "cpu" and images.dtype == self.weight.dtype and not torch.is_autocast_enabled("cpu")
    if not (learns and exact and images.ndim == 4 and max(images.shape[2:]) <= reach + 1):
        return nn.Conv2d.forward(self, images)
    return _as_product(images, self.weight, self.bias)


def _as_product(images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """(N, C, H, W) of images (N, C, H, W): with every pixel in reach of every other, each channel is a matrix of its own."""
    count, channels, high, wide = images.shape
    side = weight.shape[-1]
    down, across = (torch.arange(n)[:, None] - torch.arange(n)[None, :] + side // 2 for n in (high, wide))
    places = down[:, None, :, None] * side + across[None, :, None, :]  # (H, W) that is read, (H, W) that is written
    matrices = weight.reshape(channels, side * side).t()[places.reshape(-1)].reshape(high * wide, high * wide, channels)
    found: torch.Tensor = _ChannelProduct.apply(images.permute(0, 2, 3, 1).reshape(count, high * wide, channels), matrices)
    found = found.reshape(count, high, wide, channels).permute(0, 3, 1, 2)
    return found if bias is None else found + bias.reshape(1, -1, 1, 1)


class _ChannelProduct(torch.autograd.Function):
    """rows (N, Q, C), matrices (Q, P, C) -> (N, P, C), the sum over Q; the channels lie together, so that they run abreast."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
        """One written pixel at a time."""
        ctx.save_for_backward(rows, matrices)
        return torch.stack([(rows * matrices[:, p]).sum(1) for p in range(matrices.shape[1])], 1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of rows and of matrices."""
        rows, matrices = ctx.saved_tensors
        of_rows, of_matrices = torch.zeros_like(rows), torch.empty_like(matrices)
        for p in range(matrices.shape[1]):
            one = gradient[:, p : p + 1]
            of_rows.addcmul_(one.expand_as(rows), matrices[:, p].expand_as(rows))
            of_matrices[:, p] = (rows * one).sum(0)
        return of_rows, of_matrices
