"""Convolutions as matrix products against the convolution itself, in double precision."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from timm.layers import Conv2dSame, StdConv2d
from torch import nn

from valgap.training import convolutions
from valgap.training.convolutions import POINTWISE_SIDE, quicken_convolutions


def learned(conv: nn.Conv2d, images: torch.Tensor) -> list[torch.Tensor | None]:
    """The output, and the gradients of images and parameters."""
    given = images.clone().requires_grad_(True)
    found = conv(given)
    found.square().sum().backward()
    return [found, given.grad, *(p.grad for p in conv.parameters())]


def assert_agree(expected: list[torch.Tensor | None], found: list[torch.Tensor | None]) -> None:
    """All of them are there and the same up to rounding."""
    for one, other in zip(expected, found, strict=True):
        assert one is not None
        assert other is not None
        assert torch.allclose(one, other)


@pytest.mark.parametrize(
    ("side", "high", "wide", "bias"), [(5, 3, 3, False), (5, 4, 7, True), (7, 4, 5, True), (5, 14, 14, False)]
)
def test_a_wide_depthwise_kernel_is_the_convolution(
    side: int, high: int, wide: int, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(6, 6, side, padding=side // 2, groups=6, bias=bias).double()
    quick = copy.deepcopy(plain)
    quicken_convolutions(quick)
    images = torch.randn(4, 6, high, wide, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    expected = learned(plain, images)
    monkeypatch.setattr(nn.Conv2d, "forward", None)
    assert_agree(expected, learned(copy.deepcopy(quick), images))  # a copy has weights of its own
    assert quick.weight.grad is None


def test_a_depthwise_kernel_on_images_that_need_no_gradient() -> None:
    torch.manual_seed(0)
    quick = nn.Conv2d(6, 6, 5, padding=2, groups=6, bias=False)
    plain = copy.deepcopy(quick)
    quicken_convolutions(quick)
    images = torch.randn(2, 6, 8, 8)
    for conv in (plain, quick):
        conv(images).square().sum().backward()
    assert plain.weight.grad is not None
    assert quick.weight.grad is not None
    assert torch.allclose(plain.weight.grad, quick.weight.grad, rtol=1e-4)


@pytest.mark.parametrize(("stride", "side", "bias"), [(1, 3, False), (2, 7, True), ((2, 1), 4, False), (1, POINTWISE_SIDE, True)])
def test_a_pointwise_kernel_is_the_convolution(stride: Any, side: int, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(6, 10, 1, stride=stride, bias=bias).double()
    quick = copy.deepcopy(plain)
    quicken_convolutions(quick)
    images = torch.randn(4, 6, side, side, dtype=torch.float64)
    expected = learned(plain, images)
    monkeypatch.setattr(nn.Conv2d, "_conv_forward", None)
    assert_agree(expected, learned(quick, images))


def test_all_else_is_left_to_the_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolutions, "_Depthwise", None)
    small = torch.randn(2, 6, 3, 3)
    for images, conv in (
        (small, nn.Conv2d(6, 6, 7, padding=3, groups=6)),
        (small, nn.Conv2d(6, 6, 5, padding=1, groups=6)),
        (small, nn.Conv2d(6, 6, (5, 3), padding=(2, 1), groups=6)),
        (small, nn.Conv2d(6, 6, 1, padding=1)),
        (small, nn.Conv2d(6, 6, 1, groups=3)),
        (small, nn.Conv2d(6, 6, 3, padding=1, groups=6)),
        (small, nn.Conv2d(6, 6, 5, padding=2, groups=3)),
        (small, nn.Conv2d(6, 6, 5, padding=2, groups=6, stride=2)),
        (small, nn.Conv2d(6, 6, 5, padding=2, groups=6).requires_grad_(False)),
    ):
        expected = conv(images)
        quicken_convolutions(conv)
        assert torch.equal(conv(images), expected)
    with torch.no_grad():
        conv = nn.Conv2d(6, 6, 5, padding=2, groups=6)
        quicken_convolutions(conv)
        conv(small)


@pytest.mark.parametrize(
    "plain",
    [
        StdConv2d(6, 10, 1),  # its weights are standardised in each pass
        Conv2dSame(6, 6, 5, stride=2, groups=6),  # it pads by the size of the map
        Conv2dSame(6, 6, 5, groups=6),
        nn.Conv2d(6, 6, 3, padding=1, groups=6, stride=2),
    ],
)
def test_kinds_with_a_forward_of_their_own_keep_it(plain: nn.Conv2d) -> None:
    torch.manual_seed(0)
    plain = plain.double()
    quick = copy.deepcopy(plain)
    quicken_convolutions(quick)
    images = torch.randn(4, 6, 3, 3, dtype=torch.float64)
    assert_agree(learned(plain, images), learned(quick, images))


@pytest.mark.parametrize("side", [3, 6])
@pytest.mark.parametrize(
    "plain",
    [
        nn.Conv2d(6, 6, 5, padding=2, groups=6),
        nn.Conv2d(6, 6, 3, padding=1, groups=6, stride=2),
        Conv2dSame(6, 6, 5, stride=2, groups=6),
    ],
)
def test_a_slow_depthwise_kernel_under_bfloat16_is_the_one_in_float32(plain: nn.Conv2d, side: int) -> None:
    torch.manual_seed(0)
    quick = copy.deepcopy(plain)
    quicken_convolutions(quick)
    images = torch.randn(4, 6, side, side).bfloat16()
    expected = learned(copy.deepcopy(plain), images.float())
    with torch.autocast("cpu", torch.bfloat16):
        found = learned(quick, images)
    assert found[0] is not None
    assert expected[0] is not None
    assert found[0].dtype == torch.bfloat16  # what follows goes on in it
    assert torch.allclose(found[0].float(), expected[0], rtol=2**-8, atol=1e-6)  # rounded once: not the weights as well
    for one, other in zip(expected, found, strict=True):
        assert one is not None
        assert other is not None
        assert (one - other.float()).norm() < 0.01 * one.norm()
