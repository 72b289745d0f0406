"""Layers that leave out parts at random, whoever wrote them."""

from __future__ import annotations

import pytest
import timm.layers
import torchvision
from torch import nn

from valgap.seams.looking.dropouts import drop_probability


class HiddenDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.3)


@pytest.mark.parametrize(
    ("layer", "share"),
    [
        (nn.Dropout2d(0.4), 0.4),
        (nn.Dropout(0.0), 0.0),
        (torchvision.ops.StochasticDepth(0.6, "row"), 0.6),
        (torchvision.ops.DropBlock2d(0.25, 3), 0.25),
        (timm.layers.DropPath(0.9), 0.9),
        (timm.layers.DropPath(0.0), 0.0),
        (nn.BatchNorm2d(3), 0.0),
        (HiddenDropout(), 0.0),  # the layer in it counts
    ],
)
def test_the_share_that_a_layer_leaves_out(layer: nn.Module, share: float) -> None:
    assert drop_probability(layer) == share
