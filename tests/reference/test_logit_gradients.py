"""The gradient at the logits, held against that of cross-entropy."""

from typing import Any

import pytest
import torch
from torch.nn import functional

from valgap.seams.looking.logit_gradients import LogitGradient, against_cross_entropy


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
    assert compared is not None and compared[0].tolist() == pytest.approx([1.0, 1.0, 0.0, 0.0], abs=1e-5)
    away = LogitGradient(logits)
    loss(logits, 1 - target).backward()
    turned = against_cross_entropy(away, logits.detach(), target)
    assert turned is not None and float(turned[0][0]) < -0.9


class Together(torch.autograd.Function):
    """Hands on two tensors, as a parallel wrapper hands on a loss and the logits; no gradient of one that is not used."""

    @staticmethod
    def forward(ctx: Any, loss: torch.Tensor, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.set_materialize_grads(False)
        return loss.clone(), logits.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients


def test_logits_that_no_gradient_comes_back_to_disturb_nothing() -> None:
    weight = torch.nn.Parameter(torch.randn(3, 2, generator=torch.Generator().manual_seed(0)))
    inner = torch.rand(4, 3) @ weight
    seen = LogitGradient(inner)
    loss, _ = Together.apply(functional.cross_entropy(inner.detach() * weight.sum(), torch.arange(4) % 2), inner)
    loss.backward()
    assert weight.grad is not None and seen.value is None
    assert against_cross_entropy(seen, inner.detach(), torch.arange(4) % 2) is None


@pytest.mark.parametrize("scale", [65536.0, float("inf")])
def test_a_scaled_loss_that_overflows_says_nothing_of_its_gradient(scale: float) -> None:
    logits = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    target = torch.arange(8) % 4
    seen = LogitGradient(logits)
    (functional.cross_entropy(logits, target) * 65536.0).backward()
    seen.scale = torch.tensor(scale)
    compared = against_cross_entropy(seen, logits.detach(), target)
    assert compared is not None
    cosine, ratio, silent, _ = compared[0].tolist()
    assert silent == 0
    assert (cosine, ratio) == pytest.approx((1.0, 1.0) if scale < float("inf") else (float("nan"),) * 2, nan_ok=True)


def test_log_probabilities_are_pulled_as_the_scores_before_them() -> None:
    """A model that ends with LogSoftmax, under the negative log-likelihood."""
    draw = torch.Generator().manual_seed(0)
    scores, target = torch.nn.Parameter(torch.randn(32, 5, generator=draw)), torch.arange(32) % 5
    known = scores.log_softmax(1)
    seen = LogitGradient(known)
    (-known.gather(1, target[:, None]).mean()).backward()
    compared = against_cross_entropy(seen, known.detach(), target)
    assert compared is not None and compared[0].tolist() == pytest.approx([1.0, 1.0, 0.0, 0.0], abs=1e-5)
