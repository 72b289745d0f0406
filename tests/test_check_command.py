"""`valgap check`: folders, lists, damaged files; outcomes, exit status, nothing written into the data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from typer.testing import CliRunner

import valgap.cli
from tests.features.pictures import photo_folder, scene
from valgap.diagnosis import check
from valgap.errors import DataError, UnreachableError
from valgap.types import Clear, Finding

pytestmark = pytest.mark.takes(50)
runner = CliRunner()


def run(*arguments: object) -> tuple[int, dict[str, Any]]:
    done = runner.invoke(valgap.cli.app, ["check", *map(str, arguments), "--json"])
    return done.exit_code, json.loads(done.stdout)


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 + 20 scenes, and three val images that are training images, with one truncated file."""
    root = tmp_path_factory.mktemp("leaky")
    for split, start, count in (("train", 0, 20), ("val", 100, 10)):
        for label in range(2):
            folder = root / split / f"c{label}"
            folder.mkdir(parents=True)
            for i in range(count):
                picture = scene(start + 50 * label + i, 160)
                tinted = np.asarray(picture, float) * ([1.0, 0.6, 0.4] if label else [0.4, 0.6, 1.0])
                Image.fromarray(tinted.astype(np.uint8)).save(folder / f"{i}.jpg", quality=90)
    source = Image.open(root / "train" / "c0" / "3.jpg")
    target = root / "val" / "c0"
    ImageOps.mirror(source).save(target / "mirrored.jpg")
    source.crop((10, 10, 150, 150)).save(target / "cropped.jpg")
    (target / "copied.jpg").write_bytes((root / "train" / "c0" / "3.jpg").read_bytes())
    (root / "train" / "c1" / "cut.jpg").write_bytes((root / "train" / "c1" / "0.jpg").read_bytes()[:900])
    return root


def test_leaks_and_damage_are_found(leaky: Path) -> None:
    before = sorted((p, p.stat().st_mtime_ns) for p in leaky.rglob("*"))
    status, body = run(leaky, "--fail-on", "suspected")
    assert status == 1
    found = {f["code"]: f for f in body["findings"] if f["confidence"] >= 0.5}
    assert set(found) == {"DAT101", "DAT108"}
    assert sorted(s.split(" = ")[0] for s in found["DAT101"]["subjects"]) == [
        f"val/c0/{n}.jpg" for n in ("copied", "cropped", "mirrored")
    ]
    assert found["DAT108"]["subjects"] == ["train/c1/cut.jpg"]
    assert body["crashed"] == []
    assert sorted((p, p.stat().st_mtime_ns) for p in leaky.rglob("*")) == before


def test_the_page_shows_copies_beside_their_originals(leaky: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    run(leaky, "--select", "DAT101", "--html", page)
    text = page.read_text()
    assert text.count("data:image/webp") == 6
    assert 'alt="val/c0/mirrored.jpg"' in text and 'alt="train/c0/3.jpg"' in text


def test_a_long_list_goes_into_a_file(leaky: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("valgap.report.lists.LISTED", 1)
    _, body = run(leaky, "--select", "DAT101,DAT108", "--lists", tmp_path / "lists")
    found = {f["code"]: f for f in body["findings"]}
    assert len(found["DAT101"]["subjects"]) == 1
    assert (found["DAT101"]["subjects_total"], found["DAT101"]["subjects_file"]) == (3, str(tmp_path / "lists" / "DAT101.csv"))
    assert "subjects_total" not in found["DAT108"]
    assert len((tmp_path / "lists" / "DAT101.csv").read_text().splitlines()) == 4


def test_a_sound_folder_passes(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for number in range(60):
        place = folder / ("val" if number >= 40 else "train") / ("red", "blue")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        tint = [1.0, 0.5, 0.3] if number % 2 == 0 else [0.3, 0.5, 1.0]
        Image.fromarray((np.asarray(scene(number, 96)) * tint).astype(np.uint8)).save(place / f"{number}.jpg", quality=90)
    status, body = run(folder, "--fail-on", "suspected", "--ignore", "DAT107")
    assert status == 0, [f["summary"] for f in body["findings"]]
    assert [r["path"] for c in body["clear"] if c["code"] == "DAT104" for r in c["ranking"]]


def test_single_folder_list_and_selection(tmp_path: Path) -> None:
    folder = photo_folder(tmp_path / "photos", train=12, val=2)
    done = check(folder / "train", select=["DAT108"])
    assert [type(j.outcome) for j in done.judged] == [Clear]
    listing = tmp_path / "list.csv"
    rows = [f"photos/train/{k}/{i}.png,{k},train" for k in ("blobs", "stripes") for i in range(12)]
    listing.write_text("path,label,split\n" + "\n".join([*rows, "photos/gone.png,blobs,val"]) + "\n")
    done = check(listing, select=["DAT108"])
    finding = done.judged[0].outcome
    assert isinstance(finding, Finding)
    assert finding.subjects == ("photos/gone.png",)


def test_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither"):
        check(tmp_path / "nothing")
    with pytest.raises(DataError, match="holds no image"):
        check(tmp_path)


def test_an_image_that_nobody_can_reach_ends_the_check(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path\nno://such/place.jpg\n")
    with pytest.raises(UnreachableError, match=r"no://such/place\.jpg is no address"):
        check(tmp_path / "list.csv")
