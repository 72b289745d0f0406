"""Convolutions that learn faster in another way, on processors: with the same results up to rounding.

On maps of up to 14 x 14 a 1 x 1 convolution with its gradients takes 1.1 to 1.7 times as long as the same product by a linear
layer. Of depthwise kernels that are wide the library's gradient of the weight takes much of an EfficientNet's step: see
`_Depthwise`. In bfloat16 the gradients of those, and of kernels that go in steps of two, take 3 to 20 times as long as in
float32, so that they stay in float32.
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
        # On maps of less than half the kernel's side the library is the faster one.
        if not _is_centred(self) or 2 * min(images.shape[2:]) <= self.kernel_size[0]:
            return type(self).forward(self, exact).to(images.dtype)
        found: torch.Tensor = _Depthwise.apply(exact, self.weight)
        return (found if self.bias is None else found + self.bias.reshape(1, -1, 1, 1)).to(images.dtype)


class _Depthwise(torch.autograd.Function):
    """images (N, C, H, W), weight (C, 1, K, K) -> (N, C, H, W): its gradients are convolutions, which the library is quick at.

    That of the images is one with the kernel flipped; that of the weight one of each map with its output's gradient for a
    kernel. The library's own gradient of the weight takes 4 to 7 times as long as this one.
    """

    @staticmethod
    def forward(ctx: Any, images: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """The convolution."""
        ctx.save_for_backward(images, weight)
        return _over_each(images, weight)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Of images and of weight."""
        images, weight = ctx.saved_tensors
        count, channels, high, wide = images.shape
        of_images = _over_each(gradient, weight.flip(2, 3)) if ctx.needs_input_grad[0] else None
        maps = images.contiguous().view(1, count * channels, high, wide)
        kernels = gradient.contiguous().view(count * channels, 1, high, wide)
        side = weight.shape[-1]
        of_weight = nn.functional.conv2d(maps, kernels, padding=side // 2, groups=count * channels)
        return of_images, of_weight.view(count, channels, side, side).sum(0).unsqueeze(1)


def _over_each(images: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return nn.functional.conv2d(images, weight, padding=weight.shape[-1] // 2, groups=len(weight))
