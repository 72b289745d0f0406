"""A large set's measurements: those of a small one, from tables on disk; a kill, a change and a full disk."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.features.pictures import scene
from tests.processes import ForkedPopen
from valgap.engine.store import FeatureStore, cache_folder
from valgap.errors import ValgapError
from valgap.features import Measurements, images_of_path, rows_of_path
from valgap.features.backbone import CHOICES, Backbone, backbone_key
from valgap.features.large import measurements as large
from valgap.features.large.measurements import LargeMeasurements
from valgap.features.large.table import LookTable, kept
from valgap.features.looking import look_at

pytestmark = pytest.mark.takes(45)


@pytest.fixture(scope="module")
def networks(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that knows the engine's way to run the backbone here, as that of the session does, and nothing else.

    To find it takes longer than most of these tests.
    """
    looks = [look_at(file.read_bytes()) for file in sorted((folder / "val" / "c0").iterdir())[:8]]
    pictures = [[look.image for look in looks if look.image is not None], [x.mirrored for x in looks if x.mirrored is not None]]
    Backbone(1_000).features(*pictures)
    place = tmp_path_factory.mktemp("networks")
    for file in (cache_folder() / CHOICES, *cache_folder().glob("network-*")):
        shutil.copy2(file, place)
    return place


@pytest.fixture(autouse=True)
def cache(networks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VALGAP_CACHE", str(tmp_path / "cache"))
    shutil.copytree(networks, tmp_path / "cache")
    return tmp_path / "cache"


def tinted_folder(root: Path, train: int, val: int) -> Path:
    """Scenes in two tints, with a copy across the split, a mirrored one, a wrongly named and a truncated file."""
    for split, start, count in (("train", 0, train), ("val", 500, val)):
        for label in range(2):
            folder = root / split / f"c{label}"
            folder.mkdir(parents=True)
            for i in range(count):
                tint = [1.0, 0.6, 0.4] if label else [0.4, 0.6, 1.0]
                picture = np.asarray(scene(start + 200 * label + i, 96), float) * tint
                Image.fromarray(picture.astype(np.uint8)).save(folder / f"{i}.jpg", quality=90)
    first = root / "train" / "c0" / "3.jpg"
    (root / "val" / "c0" / "copied.jpg").write_bytes(first.read_bytes())
    ImageOps.mirror(Image.open(first)).save(root / "val" / "c0" / "mirrored.jpg")
    (root / "train" / "c0" / "again.png").write_bytes((root / "train" / "c0" / "5.jpg").read_bytes())
    (root / "train" / "c1" / "cut.jpg").write_bytes((root / "train" / "c1" / "0.jpg").read_bytes()[:900])
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tinted_folder(tmp_path_factory.mktemp("scenes"), train=40, val=15)


def test_a_large_set_is_measured_as_a_small_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in {"table.BLOCK": 16, "wrong_labels.BLOCK": 16, "wrong_labels.SLAB": 33, "measurements.SLAB": 50}.items():
        monkeypatch.setattr(f"valgap.features.large.{name}", size)
    rows = rows_of_path(folder)
    small, found = Measurements(rows), LargeMeasurements(rows)
    everything = np.arange(len(rows.names))
    assert small.embeddings is not None and found.embeddings is not None
    assert np.array_equal(small.embeddings, found.embeddings[everything], equal_nan=True)
    assert np.isnan(found.embeddings[:, 0]).tolist() == np.isnan(small.embeddings[:, 0]).tolist()
    assert found.unreadable == small.unreadable and len(found.unreadable) == 1
    assert found.attributes.words == small.attributes.words
    for name, values in small.attributes.numbers.items():
        assert np.array_equal(values, found.attributes.numbers[name], equal_nan=True)
    assert {k: p.tolist() for k, p in found.oddities.items()} == {k: p.tolist() for k, p in small.oddities.items()}
    assert [(p.first, p.second, p.kind) for p in found.pairs or ()] == [(p.first, p.second, p.kind) for p in small.pairs or ()]
    assert {p.kind for p in found.pairs or ()} == {"same_bytes", "near"}
    assert small.held_out is not None and found.held_out is not None
    assert found.held_out.train_accuracy == pytest.approx(small.held_out.train_accuracy, abs=0.03)
    assert found.held_out.val_accuracy == pytest.approx(small.held_out.val_accuracy, abs=0.05)
    ours, theirs = found.label_errors, small.label_errors
    assert ours is not None and theirs is not None
    judged = np.isfinite(theirs.wrong)
    assert np.isfinite(ours.wrong).tolist() == judged.tolist()
    assert np.allclose(ours.wrong[judged], theirs.wrong[judged], atol=0.05)
    assert found.shift is not None and small.shift is not None
    assert (found.shift.auc, found.shift.p_value) == (small.shift.auc, small.shift.p_value)
    assert found.learning_curve is not None and small.learning_curve is not None
    assert found.learning_curve.sizes[-1] == small.learning_curve.sizes[-1]
    assert found.learning_curve.accuracies[-1].mean() == pytest.approx(small.learning_curve.accuracies[-1].mean(), abs=0.05)
    assert (found.other_kinds is None) == (small.other_kinds is None)


def test_the_size_decides(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(images_of_path(folder), Measurements)
    monkeypatch.setattr(large, "LARGE", len(rows_of_path(folder).names) - 1)
    assert isinstance(images_of_path(folder), LargeMeasurements)


def test_a_second_look_opens_no_file_and_a_changed_one_is_seen_anew(tmp_path: Path) -> None:
    root = tinted_folder(tmp_path / "photos", train=6, val=4)
    LargeMeasurements(rows_of_path(root)).embeddings  # noqa: B018 (measures)
    table = LookTable(rows_of_path(root).paths, backbone_key())
    assert not len(table.missing)
    file = root / "train" / "c0" / "1.jpg"
    Image.fromarray(np.asarray(scene(99, 80))).save(file)
    (root / "val" / "c1" / "new.jpg").write_bytes(file.read_bytes())
    rows = rows_of_path(root)
    seen: list[tuple[int, int]] = []
    again = LargeMeasurements(rows, lambda done, total: seen.append((done, total)))
    assert again.attributes.numbers["width"][rows.names.index("train/c0/1.jpg")] == 80
    assert seen == [(len(rows.names), len(rows.names))]
    equal = [(rows.names[p.first], rows.names[p.second]) for p in again.pairs or () if p.kind == "same_bytes"]
    assert ("train/c0/1.jpg", "val/c1/new.jpg") in equal


def test_a_disk_without_room_is_told_before_anything_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "ROW_BYTES", 10**15)
    with pytest.raises(ValgapError, match="set VALGAP_CACHE to a folder with room"):
        LargeMeasurements(rows_of_path(folder)).embeddings  # noqa: B018 (measures)


def test_parts_are_kept_under_their_content(tmp_path: Path) -> None:
    made: list[str] = []

    place = tmp_path / "parts"
    place.mkdir()

    def make(text: str) -> dict[str, np.ndarray]:
        made.append(text)
        return {"a": np.array(text)}

    assert str(kept(place, "part", "one", lambda: make("first"))["a"]) == "first"
    assert str(kept(place, "part", "one", lambda: make("again"))["a"]) == "first"
    assert str(kept(place, "part", "two", lambda: make("other"))["a"]) == "other"
    assert made == ["first", "other"]
    assert len(list(place.iterdir())) == 1  # what was made of other content is gone


CHECK = """
import json, sys
import valgap.features.large.measurements as large
large.LARGE, large.APPENDED = 10, 16
import valgap.features.look_pass as look_pass
look_pass.CHUNK = 8
from valgap.diagnosis import check
from valgap.report.as_json import diagnosis_to_json
told = lambda done, total: print("told", done, total, flush=True)
say = lambda text: print("say", text, flush=True)
print(json.dumps(diagnosis_to_json(check(sys.argv[1], progress=told, say=say))))
"""


def start(folder: Path, cache: Path, output: Path) -> ForkedPopen:
    """A check with a cache of its own that tells into a file."""
    script = output.with_suffix(".py")
    script.write_text(CHECK)
    with output.open("wb") as stream:
        return ForkedPopen([sys.executable, script, folder], stream, env={"VALGAP_CACHE": str(cache)})


@pytest.fixture(scope="module")
def whole(folder: Path, networks: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a check that nobody stops tells."""
    home = tmp_path_factory.mktemp("whole")
    shutil.copytree(networks, home / "cache")
    assert start(folder, home / "cache", home / "told.txt").wait(300) == 0, (home / "told.txt").read_text()
    return (home / "told.txt").read_text().splitlines()


@pytest.mark.parametrize(
    "moment",
    ["say labels", *(pytest.param(m, marks=pytest.mark.slow) for m in ("told 48 114", "say near copies: pictures"))],
)
def test_a_killed_check_goes_on_to_the_same_result(
    folder: Path, whole: list[str], cache: Path, tmp_path: Path, moment: str
) -> None:
    assert any(line.startswith(moment) for line in whole)
    output = tmp_path / "killed.txt"
    killed = start(folder, cache, output)
    end = time.monotonic() + 300
    while time.monotonic() < end and not any(line.startswith(moment) for line in output.read_text().splitlines()):
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait(60) == -signal.SIGKILL
    output = tmp_path / "again.txt"
    assert start(folder, cache, output).wait(300) == 0, output.read_text()
    again = output.read_text().splitlines()
    looks = [line for line in again if line.endswith(" 114") and line.startswith("told")]
    if moment.startswith("told"):
        assert 48 < int(looks[0].split()[1]) <= 80, "what was seen before the kill is not looked at again"
    else:
        assert not looks or not again[0].startswith("say looking"), "all images were seen"
    assert again[-1] == whole[-1]


def test_the_cache_tells_of_tables_and_clears_them(folder: Path, cache: Path) -> None:
    LargeMeasurements(rows_of_path(folder)).unreadable  # noqa: B018 (measures)
    store = FeatureStore(cache)
    assert store.others()["tables"] > len(rows_of_path(folder).names) * 14_000
    (cache / "mine.txt").write_text("not ours")
    assert store.clear() > 0
    assert "tables" not in store.others()
    assert (cache / "mine.txt").exists()
