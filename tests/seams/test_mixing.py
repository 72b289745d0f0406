"""What images are mixed of, by their pixels, and what is asked for them, by the gradient at the logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from valgap.seams.acting.reference_acts import MixedTargets
from valgap.seams.looking.logit_gradients import LogitGradient
from valgap.seams.looking.mixing import asked_for, mixed_of, source_of, told

CLASSES, N = 5, 24
LAM = 0.7


def pictures(seed: int = 0) -> torch.Tensor:
    """Smooth random images: neighbouring pixels are alike, as in photographs."""
    torch.manual_seed(seed)
    return nn.functional.interpolate(torch.rand(N, 3, 6, 6), (24, 24), mode="bilinear")


def pasted(images: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    out = images.clone()
    out[:, :, 6:18, 3:15] = images[index][:, :, 6:18, 3:15]
    return out


def gradient(logits: torch.Tensor, *terms: tuple[float, torch.Tensor], smoothing: float = 0.0) -> torch.Tensor:
    """At these logits, of a sum of cross-entropies, as a hook sees it."""
    leaf = logits.clone().requires_grad_()
    own = LogitGradient(leaf)
    sum(w * nn.functional.cross_entropy(leaf, y, label_smoothing=smoothing) for w, y in terms).backward()  # type: ignore[union-attr]
    assert own.value is not None
    return own.value


def test_both_parts_of_a_mixed_image_and_their_shares() -> None:
    images, index = pictures(), torch.randperm(N)
    source = source_of(images)
    assert source is not None
    other = index != torch.arange(N)
    for after in (LAM * images + (1 - LAM) * images[index], (LAM * images + (1 - LAM) * images[index] - 0.4) / 0.2):
        mixed = mixed_of(source, after)
        assert mixed is not None
        parts, shares = mixed
        assert torch.equal(parts[:, 0][other], torch.arange(N)[other]) and torch.equal(parts[:, 1][other], index[other])
        assert torch.allclose(shares[other], torch.tensor([LAM, 1 - LAM]).double(), atol=0.02)
    mixed = mixed_of(source, pasted(images, index))
    assert mixed is not None
    own = (mixed[0] == torch.arange(N)[:, None]).nonzero()[:, 1]
    assert torch.allclose(mixed[1].gather(1, own[:, None])[other], torch.tensor(0.75).double(), atol=0.08)


@pytest.mark.parametrize("change", ["none", "drawn", "turned"])
def test_images_that_are_no_mix_are_told_of_one_or_of_none(change: str) -> None:
    images = pictures()
    source = source_of(images)
    after = {"none": images, "drawn": pictures(1), "turned": images.rot90(1, (2, 3))}[change]
    assert source is not None
    mixed = mixed_of(source, after)
    assert mixed is not None
    second = mixed[1][:, 1]
    assert bool((torch.isnan(second) | (second < 0.1)).float().mean() > 0.8)
    assert mixed_of(source, images[:, :, :12]) is None and mixed_of(source, images[:5]) is None


def test_what_a_cross_entropy_was_asked_is_read_off_its_gradient() -> None:
    torch.manual_seed(0)
    logits, y = torch.randn(N, CLASSES), torch.randint(CLASSES, (N,))
    hot = nn.functional.one_hot(y, CLASSES).double()
    asked = asked_for(gradient(logits, (1.0, y)), logits)
    assert asked is not None and torch.allclose(asked, hot, atol=1e-4)
    asked = asked_for(gradient(logits, (3.0, y)), logits)  # a sum, a scaled loss
    assert asked is not None and torch.allclose(asked, hot, atol=1e-4)
    smooth = asked_for(gradient(logits, (1.0, y), smoothing=0.1), logits)
    assert smooth is not None and torch.equal(smooth.argmax(1), y)
    leaf = logits.clone().requires_grad_()
    nn.functional.binary_cross_entropy_with_logits(leaf, hot.float()).backward()
    assert leaf.grad is not None and asked_for(leaf.grad, logits) is None


@pytest.mark.parametrize(
    ("case", "most"),
    [
        ("sound", {}),
        ("exchanged", {"reversed": "uneven"}),
        ("two draws", {"neither": "images"}),
        ("one label", {"single": "large"}),
        ("smoothed", {}),
    ],
)
def test_what_is_asked_is_held_against_what_is_mixed(case: str, most: dict[str, str]) -> None:
    torch.manual_seed(1)
    images, y = pictures(), torch.arange(N) % CLASSES
    index, again = torch.randperm(N), torch.randperm(N)
    logits = torch.randn(N, CLASSES)
    source = source_of(images)
    assert source is not None
    mixed = mixed_of(source, LAM * images + (1 - LAM) * images[index])
    terms = {
        "exchanged": ((1 - LAM, y), (LAM, y[index])),
        "two draws": ((LAM, y), (1 - LAM, y[again])),
        "one label": ((1.0, y),),
    }.get(case, ((LAM, y), (1 - LAM, y[index])))
    asked = asked_for(gradient(logits, *terms, smoothing=0.1 if case == "smoothed" else 0.0), logits)
    assert mixed is not None and asked is not None
    stats = told(*mixed, y, asked)
    assert stats is not None and stats["images"] > N / 2
    for name, whole in (("reversed", "uneven"), ("neither", "images"), ("single", "large")):
        share = stats[name] / stats[whole]
        assert share > 0.15 if most.get(name) == whole else share < 0.13 or case in ("exchanged", "two draws"), name


def test_of_two_classes_a_mix_asks_for_both() -> None:
    """There is no class that nothing is asked for: the gradient can be read as that of a mean over the batch."""
    torch.manual_seed(3)
    images, y = pictures(), torch.arange(N) % 2
    index = torch.arange(N).roll(1)
    logits, source, lam = torch.randn(N, 2), source_of(images), 0.93
    assert source is not None
    mixed = mixed_of(source, lam * images + (1 - lam) * images[index])
    assert mixed is not None
    for terms, share in ((((lam, y), (1 - lam, y[index])), 0.0), (((1 - lam, y), (lam, y[index])), 1.0)):
        asked = asked_for(gradient(logits, *terms), logits)
        stats = told(*mixed, y, asked) if asked is not None else None
        assert stats is not None and stats["uneven"] == N and stats["reversed"] == share * N
    assert asked_for(2.5 * gradient(logits, (1.0, y)), logits) is None


def test_the_reference_asks_for_what_is_mixed() -> None:
    torch.manual_seed(2)
    images, y, index = pictures(), torch.arange(N) % CLASSES, torch.randperm(N)
    after = LAM * images + (1 - LAM) * images[index]
    model, act = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, CLASSES)), MixedTargets(CLASSES)
    act.batch((images, y))
    assert act.inputs(after) is after
    out = model(after)
    act.returned(out, True)
    act.before_backward(True, [])
    (nn.functional.cross_entropy(out, y[index]) * 5).backward()
    act.after_backward(None)
    assert act.acted == 1
    changed = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    out = model(after)
    (LAM * nn.functional.cross_entropy(out, y) + (1 - LAM) * nn.functional.cross_entropy(out, y[index])).backward()
    for own, p in zip(changed, model.parameters(), strict=True):
        assert p.grad is not None
        assert torch.allclose(own, p.grad, atol=2e-2 * float(p.grad.abs().max()))


def test_the_random_state_is_left_alone() -> None:
    before, images = torch.get_rng_state(), None
    images = pictures()
    torch.set_rng_state(before)
    source = source_of(images)
    assert source is not None
    mixed_of(source, images)
    assert torch.equal(torch.get_rng_state(), before) and np.isfinite(source.values.numpy()).all()
