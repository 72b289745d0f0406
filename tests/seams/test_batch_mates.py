"""Answers among other batch mates: from two batches, or from the one that a small validation set is."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import nn

from valgap.seams.closing.batch_mates import batch_mate_numbers
from valgap.seams.looking.tracked import TrackedModel


@pytest.mark.parametrize(("sizes", "kept"), [((8, 8), 4), ((8, 1), 2), ((48,), 16), ((200,), 16), ((7,), 2)])
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_batchnorm_in_training_mode_depends_on_them(sizes: tuple[int, ...], kept: int, mode: Literal["eval", "train"]) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3))
    images = torch.randn(sum(sizes), 3, 6, 6) + 3 * torch.randn(sum(sizes), 1, 1, 1)
    with torch.no_grad():
        found = batch_mate_numbers(TrackedModel(0, net), images.split(list(sizes)), mode)
    assert isinstance(found, dict) and found["batch_mate_n"] == kept
    assert (found["batch_mate_change"] > 0.05) is (mode == "train")


def test_too_few_images_say_so() -> None:
    told = batch_mate_numbers(TrackedModel(0, nn.Linear(2, 2)), [torch.randn(5, 2)], "eval")
    assert isinstance(told, str) and "six" in told
    assert isinstance(batch_mate_numbers(TrackedModel(0, nn.Linear(2, 2)), [], "eval"), str)


class Mixing(nn.Module):
    """Gives each image a part of its neighbour's features."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        return 0.5 * x + 0.5 * x.roll(1, 0)


def test_neighbours_that_are_mixed_in_show_by_another_order() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(Mixing(), nn.Linear(12, 3))
    with torch.no_grad():
        found = batch_mate_numbers(TrackedModel(0, net), [torch.randn(32, 3, 2, 2), torch.randn(32, 3, 2, 2)], "eval")
    assert isinstance(found, dict) and found["batch_mate_change"] > 0.3


def test_rounding_of_large_logits_is_no_change() -> None:
    torch.manual_seed(0)
    net = nn.Linear(12, 3)
    with torch.no_grad():
        net.weight.mul_(1e-3)
        net.bias.fill_(1e6)
        found = batch_mate_numbers(TrackedModel(0, net), [torch.randn(32, 12), torch.randn(32, 12)], "eval")
    assert found == {"batch_mate_change": 0.0, "batch_mate_n": 16}
