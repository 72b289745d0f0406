"""Training and prediction on real photographs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from valgap.errors import DataError, RecordError
from valgap.recipe import RECIPE
from valgap.train import predict, train
from valgap.train.probe import fit_probe

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "clothing_mini"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not DATA.is_dir():
        pytest.skip("the real images are not here")
    folder = tmp_path_factory.mktemp("photos")
    for split, count in (("train", 15), ("val", 8)):
        for label in ("hat", "pants", "shoes"):
            (folder / split / label).mkdir(parents=True)
            for file in sorted((DATA / split / label).iterdir())[:count]:
                (folder / split / label / file.name).symlink_to(file)
    return folder


def test_train_and_predict(photos: Path, tmp_path: Path) -> None:
    settings = {"backbone": "efficientnet_lite0", "size": 96, "epochs": 1}
    one = train(photos, tmp_path / "a", **settings)  # type: ignore[arg-type]
    two = train(photos, tmp_path / "b", **settings)  # type: ignore[arg-type]
    assert one.best.val_accuracy > 0.8
    assert one.best.val_low < one.best.val_accuracy <= one.best.val_high
    assert (tmp_path / "a" / "checkpoint.safetensors").read_bytes() == (tmp_path / "b" / "checkpoint.safetensors").read_bytes()
    assert one.epochs == two.epochs
    facts = json.loads((tmp_path / "a" / "checkpoint.json").read_text())
    assert facts["classes"] == ["hat", "pants", "shoes"]
    predictions = predict(tmp_path / "a", [photos / "val"])
    right = np.mean([p.label == p.path.parent.name for p in predictions])
    assert right == pytest.approx(one.best.val_accuracy)
    assert all(sum(p.probabilities.values()) == pytest.approx(1, abs=1e-5) for p in predictions)
    with pytest.raises(RecordError, match="nothing is overwritten"):
        train(photos, tmp_path / "a", **settings)  # type: ignore[arg-type]
    (tmp_path / "broken.jpg").write_bytes(b"no")
    mixed = predict(tmp_path / "a", [tmp_path / "broken.jpg", predictions[0].path])
    assert mixed[0].problem is not None
    assert mixed[1].label == predictions[0].label


def test_predict_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no checkpoint"):
        predict(tmp_path, [tmp_path])
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "checkpoint.json").write_text("{}")
    (tmp_path / "checkpoint.safetensors").write_bytes(b"no weights")
    with pytest.raises(RecordError, match="cannot be read"):
        predict(tmp_path, [tmp_path / "a.png"])


def test_one_class_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "cat" / "a.png")
    with pytest.raises(DataError):
        train(tmp_path, tmp_path / "run", backbone="efficientnet_lite0")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("classes", [2, 4])
def test_probe_agrees_with_its_own_classifier_and_ignores_scale(classes: int) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(120) % classes
    centres = rng.normal(0, 2, (classes, 10))
    features = (centres[labels] + rng.normal(0, 1, (120, 10))).astype(np.float32)
    probe = fit_probe(features, labels, classes, RECIPE, 0)
    assert probe.weight.shape == (classes, 10)
    assert (probe.logits(features).argmax(1) == labels).mean() > 0.9
    scaled = fit_probe(features * 1000 + 7, labels, classes, RECIPE, 0)
    assert (scaled.logits(features * 1000 + 7).argmax(1) == probe.logits(features).argmax(1)).mean() > 0.99
    state = torch.get_rng_state()
    fit_probe(features, labels, classes, RECIPE, 0)
    assert torch.equal(torch.get_rng_state(), state)
