"""Convolutions that learn faster in another way, on processors: with the same results up to rounding.

On maps of up to 14 x 14 a 1 x 1 convolution with its gradients takes 1.1 to 1.7 times as long as the same product by a linear
layer. The library's gradient of a 5 x 5 depthwise kernel on 3 x 3 maps (the last blocks of an EfficientNet at 96 px) takes ten
times as long as this one. In bfloat16 its gradients of depthwise kernels that are wide, or that go in steps of two, take 3 to
20 times as long as in float32, so that these stay in float32.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import nn

# Up to this side of a map the linear layer was the faster one; at 28 x 28 neither is.
POINTWISE_SIDE = 14


def quicken_convolutions(module: nn.Module) -> None:
    """Let convolutions below ``module`` learn in the way that is faster.

    Without gradients, or off the processor, the convolution itself is called.
    """
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d) and conv.padding_mode == "zeros":
            if _is_pointwise(conv):
                conv.forward = types.MethodType(_pointwise, conv)  # type: ignore[method-assign]
            elif _is_slow_depthwise(conv):
                conv.forward = types.MethodType(_depthwise, conv)  # type: ignore[method-assign]


def _is_plain(conv: nn.Conv2d) -> bool:
    # timm has kinds that standardise their weights, or pad by the size of the map.
    return type(conv).forward is nn.Conv2d.forward


def _is_pointwise(conv: nn.Conv2d) -> bool:
    return _is_plain(conv) and conv.groups == 1 and conv.kernel_size == (1, 1) and conv.padding == (0, 0)


def _is_slow_depthwise(conv: nn.Conv2d) -> bool:
    return conv.groups == conv.in_channels == conv.out_channels and max(*conv.kernel_size, 2 * max(conv.stride)) > 3


def _is_centred(conv: nn.Conv2d) -> bool:
    side = conv.kernel_size[0]
    square = conv.kernel_size == (side, side) and side % 2 == 1
    return _is_plain(conv) and square and conv.padding == (side // 2, side // 2) and conv.stride == conv.dilation == (1, 1)


def _learns(conv: nn.Conv2d, images: torch.Tensor) -> bool:
    """Whether the convolution learns from these maps on the processor."""
    return torch.is_grad_enabled() and conv.weight.requires_grad and images.device.type == "cpu" and images.ndim == 4


def _pointwise(self: nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
    down, across = self.stride
    if not _learns(self, images) or max(images.shape[2:]) > POINTWISE_SIDE * max(down, across):
        return nn.Conv2d.forward(self, images)
    rows = images[:, :, ::down, ::across].permute(0, 2, 3, 1)
    return nn.functional.linear(rows, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


def _depthwise(self: nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
    if not _learns(self, images):
        return type(self).forward(self, images)
    with torch.autocast("cpu", enabled=False):
        exact = images.to(self.weight.dtype)
        # With every pixel in reach of every other, each channel is one full matrix.
        if _is_centred(self) and max(images.shape[2:]) <= self.kernel_size[0] // 2 + 1:
            return _as_product(exact, self.weight, self.bias).to(images.dtype)
        return type(self).forward(self, exact).to(images.dtype)


def _as_product(images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """(N, C, H, W) of images (N, C, H, W), each of whose pixels the kernel reaches from every other."""
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
