"""The gradient at the logits, held against that of cross-entropy."""

import pytest
import torch
from torch.nn import functional

from valgap.seams.logit_gradients import LogitGradient, against_cross_entropy


@pytest.mark.parametrize("as_probability", [False, True])
def test_one_score_for_two_classes_is_pulled_as_by_cross_entropy(as_probability: bool) -> None:
    def loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        wanted = target[:, None].float()
        if as_probability:
            return functional.binary_cross_entropy(logits.sigmoid(), wanted)
        return functional.binary_cross_entropy_with_logits(logits, wanted)

    draw = torch.Generator().manual_seed(0)
    logits, target = torch.nn.Parameter(0.3 * torch.randn(64, 1, generator=draw)), torch.arange(64) % 2
    seen = LogitGradient(logits)
    loss(logits, target).backward()
    compared = against_cross_entropy(seen, logits.detach(), target)
    assert compared is not None and compared.tolist() == pytest.approx([1.0, 1.0, 0.0], abs=1e-5)
    away = LogitGradient(logits)
    loss(logits, 1 - target).backward()
    turned = against_cross_entropy(away, logits.detach(), target)
    assert turned is not None and float(turned[0]) < -0.9
