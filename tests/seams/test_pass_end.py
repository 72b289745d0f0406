"""What is written when a pass ends takes little of the program's time, and is the same to the last digit."""

from __future__ import annotations

import base64

import numpy as np
import pytest
import torch

from valgap.record.encoding import LARGE, decode, encode
from valgap.seams.looking.inputs import lattice_step, quantized
from valgap.seams.looking.tensors import sums_and_norms


@pytest.mark.parametrize(
    ("values", "packed"),
    [
        (np.random.default_rng(0).normal(128, 30, 2 * LARGE).astype(np.uint8), False),
        (np.arange(LARGE, dtype=np.int32), True),
        (np.zeros(2 * LARGE, np.uint8), True),
        (np.random.default_rng(0).normal(128, 30, LARGE // 2).astype(np.uint8), True),
    ],
    ids=["pictures", "numbers", "black", "small"],
)
def test_what_does_not_shrink_is_stored_as_it_is(values: np.ndarray, packed: bool) -> None:
    told = encode(values)
    assert np.array_equal(decode(told), values)
    # A stored block begins with a byte that says so.
    assert ((base64.b64decode(told["z"])[2] & 0b110) != 0) is packed


@pytest.mark.parametrize("kind", ["plain", "half", "double", "nan", "constant"])
def test_kept_images_are_the_levels_of_the_plain_formula(kind: str) -> None:
    images = torch.rand(5, 3, 9, 8, generator=torch.Generator().manual_seed(0)) * 3 - 1
    images = {"half": images.half(), "double": images.double(), "constant": torch.full_like(images, 0.3)}.get(kind, images)
    if kind == "nan":
        images[0, 0, 0, 0], images[1, 2, 0, 0] = float("nan"), float("inf")
    before = images.clone()
    told = quantized(images)
    values = np.nan_to_num(images.double().numpy(), posinf=0.0, neginf=0.0)
    low, high = values.min(axis=(0, 2, 3)), values.max(axis=(0, 2, 3))
    span = np.where(high > low, high - low, 1.0)[None, :, None, None]
    assert np.array_equal(told["images"], np.round((values - low[None, :, None, None]) / span * 255).astype(np.uint8))
    assert np.array_equal(told["low"], low.astype(np.float32)) and np.array_equal(told["high"], high.astype(np.float32))
    assert torch.equal(images.nan_to_num(), before.nan_to_num())


def test_grey_levels_are_found_whatever_their_order() -> None:
    levels = np.random.default_rng(0).integers(0, 256, 5_000) / 255
    assert lattice_step(((levels - 0.5) / 0.25).astype(np.float32)) == pytest.approx(1 / (255 * 0.25), rel=1e-4)
    assert np.isnan(lattice_step(np.random.default_rng(0).random(5_000))) and np.isnan(lattice_step(np.zeros(9)))


@pytest.mark.parametrize("mixed", [False, True])
def test_sums_and_norms_are_those_of_each_tensor(mixed: bool) -> None:
    torch.manual_seed(0)
    tensors = [torch.randn(7, 5), torch.randn(3), torch.tensor(4) if mixed else torch.zeros(2)]
    sums, norms = sums_and_norms(tensors)
    real = [t if t.is_floating_point() else t.double() for t in tensors]
    assert sums.tolist() == [float(t.sum().double()) for t in real]
    assert norms.tolist() == [float(t.norm().double()) for t in real]
