"""Backbones and weights from local files."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from valgap.errors import WeightsError
from valgap.models import create_model
from valgap.models.backbones import build, preprocessing_of
from valgap.models.lite0 import bundled_file
from valgap.models.weights import fit, read_state


class Evil:
    """Would run code when unpickled."""

    def __reduce__(self) -> object:
        return (print, ("unpickled",))


def test_bundled_backbone() -> None:
    loaded = create_model("efficientnet_lite0", 5)
    assert loaded.weights is not None and loaded.weights.loaded == 296
    assert loaded.preprocessing.mean == (0.5, 0.5, 0.5)
    assert loaded.model.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 5)
    given = list(torch.load(bundled_file(), weights_only=True).values())
    assert torch.equal(loaded.model.state_dict()["conv_stem.weight"], given[0])


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "backbone.", "module.pre."])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_prefixes_are_taken_off_and_said(prefix: str, suffix: str, tmp_path: Path) -> None:
    source = build("squeezenet1_1")
    state = {prefix + k: v.clone() for k, v in source.state_dict().items()}
    state[prefix + "extra"] = torch.zeros(1)
    file = tmp_path / f"w{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": state}, file)
    else:
        save_file(state, str(file))
    model = build("squeezenet1_1")
    report = fit(model, read_state(file), file.name)
    assert report.prefix == prefix
    assert report.left_out == ("extra",)
    assert report.loaded == len(source.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), source.state_dict().values(), strict=True))
    assert "left out: extra" in report.line()


def test_a_head_of_another_size_is_left_out(tmp_path: Path) -> None:
    torch.save(build("resnet18").state_dict(), tmp_path / "r.pth")
    loaded = create_model("resnet18", 3, str(tmp_path / "r.pth"))
    assert loaded.model(torch.zeros(2, 3, 64, 64)).shape == (2, 3)


def test_what_does_not_fit_is_an_error(tmp_path: Path) -> None:
    torch.save(build("resnet18").state_dict(), tmp_path / "r.pth")
    with pytest.raises(WeightsError, match="does not fit"):
        create_model("efficientnet_lite0", 3, str(tmp_path / "r.pth"))
    with pytest.raises(WeightsError, match="no weights file"):
        create_model("resnet18", 3, str(tmp_path / "none.pth"))
    with pytest.raises(WeightsError, match="no backbone"):
        create_model("resnet5000", 3, "none")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(WeightsError):
        create_model("resnet18", 3, str(tmp_path / "text.pth"))


def test_nothing_is_ever_unpickled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": Evil()}, tmp_path / "evil.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pth", "plain.pth"):
        with pytest.raises(WeightsError):
            create_model("resnet18", 3, str(tmp_path / name))
    assert "unpickled" not in capsys.readouterr().out


def test_preprocessing_belongs_to_the_backbone() -> None:
    assert preprocessing_of(build("tf_efficientnet_lite0")).std == (0.5, 0.5, 0.5)
    assert preprocessing_of(build("resnet50")).size == 224
    assert preprocessing_of(build("resnet50")).at(160).size == 160


def test_a_damaged_pickle_is_said(tmp_path: Path) -> None:
    for data in (b"\x80\x02R.", b"\x80\x02]q\x00s.", b"\x80\x02c\n\n.", b"\x80\x04\x95", b"\x80\x02J\xff"):
        (tmp_path / "x.pth").write_bytes(data)
        with pytest.raises(WeightsError, match="weights"):
            read_state(tmp_path / "x.pth")
