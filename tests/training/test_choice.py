"""`--backbone auto` on real photographs: the better network by training images alone."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from tests.models.test_here import TINY, left_by_the_hub
from valgap.data import load_folder
from valgap.errors import ConfigError, WeightsError
from valgap.models.backbones import build
from valgap.recipe import RECIPE, Recipe
from valgap.training import train
from valgap.training.choice import Candidate, Contest, choose, views_of
from valgap.training.settings import Settings

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "clothing_mini"
CLASSES = ("hat", "pants", "shirt")
LITE0 = "efficientnet_lite0"
pytestmark = pytest.mark.takes(15)


@pytest.fixture(autouse=True)
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    if not DATA.is_dir():
        pytest.skip("the real images are not here")
    for split, count in (("train", 12), ("val", 3)):
        for label in CLASSES:
            (tmp_path / "photos" / split / label).mkdir(parents=True)
            for file in sorted((DATA / split / label).iterdir())[:count]:
                (tmp_path / "photos" / split / label / file.name).symlink_to(file)
    return tmp_path / "photos"


def settings(data: Path, **changes: object) -> Settings:
    return Settings(data, "auto", "default", RECIPE, 64, 0, None, None, **changes)  # type: ignore[arg-type]


def test_the_network_that_knows_the_images_is_taken(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    left_by_the_hub(tmp_path, TINY, build(TINY))  # a network that has learned nothing
    recipe = Recipe.changed(RECIPE, {"unfreeze": "head"})
    result = train(photos, tmp_path / "run", backbone="auto", size=64, recipe=recipe, console=Console(width=200))
    assert json.loads((result.run / "checkpoint.json").read_text())["backbone"] == LITE0
    shown = capsys.readouterr().out
    assert f"on this machine: {LITE0}" in shown and TINY in shown and f"{LITE0} is taken" in shown


def test_validation_is_not_looked_at(photos: Path) -> None:
    for file in (photos / "val").rglob("*.jpg"):
        file.unlink()
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file)
    contest = Contest(load_folder(photos, 0), 0, math.inf, Console(quiet=True))
    assert all("train" in path.parts for path in contest.paths)


def test_what_cannot_be_used_is_told_and_left_out(photos: Path) -> None:
    contest = Contest(load_folder(photos, 0), 0, math.inf, Console(quiet=True))
    best, told = contest.best([Candidate("no_such_network", 64), Candidate(LITE0, 64)])
    assert best.backbone == LITE0 and "no_such_network at 64 px is left out" in told[0]
    with pytest.raises(WeightsError, match="no backbone on this machine can be used"):
        contest.best([Candidate("no_such_network", 64)])


def test_another_view_has_to_be_clearly_better(photos: Path) -> None:
    """Larger images of 36 photographs are a little better or a little worse: the usual view stays."""
    contest = Contest(load_folder(photos, 0), 0, math.inf, Console(quiet=True))
    usual, other = Candidate(LITE0, 64), Candidate(LITE0, 72, 1.0)
    assert contest.best([usual, other], clearly=True)[0] == usual
    tiny = Candidate(LITE0, 32)
    assert contest.best([tiny, Candidate(LITE0, 128)], clearly=True)[0].size == 128
    assert [v.size for v in views_of(LITE0, 3)] == [None, 224, 288]


def test_time_that_is_up_leaves_the_first(photos: Path) -> None:
    contest = Contest(load_folder(photos, 0), 0, time.monotonic() - 1, Console(quiet=True))
    best, _ = contest.best([Candidate(LITE0, 64), Candidate(LITE0, 96)])
    assert best == Candidate(LITE0, 64)


def test_one_image_of_a_class_compares_nothing(photos: Path) -> None:
    for file in sorted((photos / "train" / "hat").iterdir())[1:]:
        file.unlink()
    found = choose(settings(photos), load_folder(photos, 0), math.inf, Console(quiet=True))
    assert (found.backbone, found.size, found.crop) == (LITE0, 64, None)


def test_a_file_of_weights_is_of_one_backbone(photos: Path) -> None:
    asked = Settings(photos, "auto", "weights.pth", RECIPE, None, 0, None, None)
    with pytest.raises(ConfigError, match="name the backbone"):
        choose(asked, load_folder(photos, 0), math.inf, Console(quiet=True))


def test_a_resumed_training_knows_what_was_chosen(tmp_path: Path) -> None:
    kept = settings(tmp_path, crop=0.9)
    kept.keep(tmp_path / "run")
    assert Settings.read(tmp_path / "run") == kept
