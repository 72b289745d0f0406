"""The images of a Case: rows, looks, features, held-out probes, curves; odd files are told, never fatal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import StratifiedKFold

from tests.features.pictures import photo_folder
from valgap.errors import DataError
from valgap.features import Measurements, rows_of_path
from valgap.features.looking import inside, jpeg_quality, look_at, sharpness
from valgap.features.probes import cross_validated, fit, folds_of, one_hot, standardised, stratified

pytestmark = pytest.mark.takes(30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photo_folder(tmp_path_factory.mktemp("photos"), train=15, val=5)


def test_everything_from_a_folder(folder: Path) -> None:
    seen: list[int] = []
    images = Measurements(rows_of_path(folder), lambda done, total: seen.append(done))
    assert images.rows.classes == ("blobs", "stripes")
    assert images.rows.part(False).tolist() == list(range(30))
    assert images.embeddings is not None and images.embeddings.shape[0] == 40
    assert [[b.shape for b in v] for v in images.views] == [[(40, 1280), (40, 320), (40, 192)]] * 2
    assert np.array_equal(images.views[0][0], images.embeddings)
    assert images.label_errors is not None and images.label_errors.train_rate < 0.05
    held = images.held_out
    assert held is not None
    assert held.train_accuracy > 0.9
    assert held.val_accuracy > 0.9
    assert (held.answers >= 0).all()
    assert set(held.folds[images.rows.part(False)]) == {0, 1, 2, 3, 4}
    assert images.learning_curve is None
    assert "40" in images.missing["learning_curve"]
    assert images.attributes.numbers["width"].tolist() == [64.0] * 40
    assert seen[-1] == 40
    again = Measurements(rows_of_path(folder))  # from the cache
    assert np.array_equal(again.embeddings, images.embeddings)
    assert again.attributes.numbers["sharpness"].tolist() == images.attributes.numbers["sharpness"].tolist()


def test_odd_files_are_told(folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
    place = tmp_path / "cats"
    place.mkdir()
    Image.fromarray(data).save(place / "a.jpg", quality=60)
    (place / "b.jpg").write_bytes((place / "a.jpg").read_bytes()[:500])
    (place / "c.png").write_bytes((place / "a.jpg").read_bytes())
    (place / "d.png").write_bytes(b"")
    (place / "e.jpg").write_text("no image")
    Image.fromarray(data).convert("CMYK").save(place / "f.jpg")
    Image.fromarray(data).convert("RGBA").save(place / "g.png")
    images = Measurements(rows_of_path(tmp_path))
    names = [Path(n).name for n in images.rows.names]
    assert {names[i]: why.split(":")[0] for i, why in images.unreadable.items()} == {
        "b.jpg": "truncated",
        "d.png": "empty file",
        "e.jpg": "UnidentifiedImageError",
    }
    odd = {kind: [names[i] for i in places] for kind, places in images.oddities.items()}
    assert odd == {"CMYK": ["f.jpg"], "alpha": ["g.png"], "wrongly named": ["c.png"]}
    assert images.attributes.numbers["jpeg_quality"][0] == pytest.approx(60, abs=2)


def test_lists(folder: Path, tmp_path: Path) -> None:
    file = folder / "list.csv"
    file.write_text("File,Label,Split\ntrain/blobs/0.png,x,train\nval/blobs/0.png,y,val\ngone.png,,\n")
    rows = rows_of_path(file)
    assert rows.labels.tolist() == [0, -1, 1]
    assert rows.is_val.tolist() == [False, False, True]
    assert Measurements(rows).unreadable[1].startswith("cannot be read")
    file.write_text("path,split\na.png,somewhere\n")
    with pytest.raises(DataError, match="line 2: split 'somewhere'"):
        rows_of_path(file)
    file.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="expected path, label, split"):
        rows_of_path(file)
    with pytest.raises(DataError, match="holds no image"):
        rows_of_path(tmp_path)
    with pytest.raises(DataError, match="neither"):
        rows_of_path(tmp_path / "nothing")


def test_attributes_of_known_pictures() -> None:
    plain = np.full((60, 80), 200, np.float32)
    assert inside(plain) == (0.0, (0, 0, 80, 60))
    framed = np.random.default_rng(0).normal(128, 40, (60, 80)).astype(np.float32)
    framed[:15], framed[-15:] = 0, 0
    assert inside(framed) == (0.5, (0, 15, 80, 45))
    assert sharpness(plain) == 0.0
    assert look_at(b"").error == "empty file"
    assert jpeg_quality([3692.0 / 64] * 64) == pytest.approx(50)


@pytest.mark.parametrize("classes", [1, 3, 7])
def test_folds_are_those_of_scikit_learn(classes: int) -> None:
    rng = np.random.default_rng(classes)
    strata = rng.permutation(np.concatenate([np.repeat(np.arange(classes) - 1, 5), rng.integers(-1, classes - 1, 31)]))
    for seed in (0, 4):
        cut = StratifiedKFold(5, shuffle=True, random_state=seed).split(np.zeros(len(strata)), strata)
        found = stratified(strata, 5, seed)
        assert all(np.array_equal(np.flatnonzero(found == number), held) for number, (_, held) in enumerate(cut))


def test_ridge_in_both_forms_and_without_leaks() -> None:
    rng = np.random.default_rng(1)
    for n, d in ((40, 100), (200, 20)):
        x, y = rng.normal(size=(n, d)), rng.integers(0, 3, n)
        targets = one_hot(y, 3)
        direct = np.linalg.solve(x.T @ x + 0.1 * n * np.eye(d), x.T @ targets)
        assert np.allclose(fit(x, targets, 0.1), direct)
        fold = folds_of(y)
        scores, penalty = cross_validated(x, y, 3, fold)
        part = fold == 2
        assert np.allclose(scores[part], x[part] @ fit(x[~part], targets[~part], penalty))
        # labels that are pure noise cannot be predicted out of fold
        assert (scores.argmax(1) == y).mean() < 0.5
    assert np.isfinite(standardised(np.zeros((5, 4)), np.arange(3))).all()
