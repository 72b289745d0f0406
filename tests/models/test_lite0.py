"""The bundled network written out, against timm's."""

from __future__ import annotations

import subprocess
import sys

import torch

from valgap.models import create_model
from valgap.models.backbones import build, preprocessing_of
from valgap.models.here import timm_name
from valgap.models.lite0 import PREPROCESSING, bundled_file, folded, load_lite0
from valgap.models.weights import fit_in_order, read_state


def test_it_is_timms_network_to_the_last_bit() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    ours = load_lite0()
    assert torch.equal(torch.get_rng_state(), before)
    theirs = build(timm_name("efficientnet_lite0"))
    fit_in_order(theirs, read_state(bundled_file()), "the bundled package")
    theirs.eval()
    for shape in ((2, 3, 64, 64), (1, 3, 71, 90)):
        images = torch.randn(shape)
        with torch.inference_mode():
            assert torch.equal(ours(images), theirs(images))
            last, *_ = ours.depths(images)
            assert torch.equal(last, theirs.forward_features(images))
    assert PREPROCESSING == preprocessing_of(theirs) == create_model("efficientnet_lite0", 2).preprocessing


def test_folding_changes_no_more_than_rounding() -> None:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        plain, short = (network.depths(images) for network in (load_lite0(), folded(load_lite0())))
    assert all(torch.allclose(a, b, atol=1e-3, rtol=1e-4) for a, b in zip(plain, short, strict=True))


def test_who_only_looks_imports_no_large_library() -> None:
    """Each takes as long to import as torch does."""
    large = ("timm", "torchvision", "sklearn", "scipy.stats", "pandas", "torch._dynamo")
    code = f"import sys, valgap.diagnosis, valgap.features.backbone; print([m for m in {large} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
