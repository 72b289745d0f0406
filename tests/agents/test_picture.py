"""Pictures are small, show what they should, and no image from outside the roots."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.checks.cases import healthy
from valgap.agents import picture
from valgap.agents.roots import Roots
from valgap.errors import ValgapError


def test_curves_are_drawn_in_two_colours_and_told_in_words() -> None:
    data, lines = picture.curves(healthy().run)
    assert len(data) <= picture.MAX_PICTURE_BYTES
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    for colour in (picture.TRAIN, picture.VAL):
        assert (np.abs(pixels - colour).sum(2) < 60).sum() > 50
    last = healthy().run.of_phase("validation")[-1].samples.accuracy
    assert next(x for x in lines if x.startswith("validation accuracy: ")).endswith(f"{last:.4g}")


def test_a_sheet_holds_images_of_the_roots_alone(tmp_path: Path) -> None:
    home, outside = tmp_path / "home", tmp_path / "outside"
    rng = np.random.default_rng(0)
    for folder in (home, outside):
        folder.mkdir()
        for i in range(12):
            Image.fromarray(rng.integers(0, 255, (200, 200, 3), np.uint8)).save(folder / f"{i}.png")
    (home / "away.png").symlink_to(outside / "0.png")
    (home / "torn.png").write_bytes(b"no image")
    names = ["away.png", "../outside/1.png", "torn.png", *(f"{i}.png" for i in range(12))]
    data, lines = picture.sheet(names, home, Roots([home]))
    assert len(data) <= picture.MAX_PICTURE_BYTES and Image.open(io.BytesIO(data)).format == "JPEG"
    assert [x.startswith("left out: ") for x in lines] == [True] * 3 + [False] * 8
    assert lines[3] == "row 1, column 1: 0.png" and lines[-1] == "row 2, column 4: 7.png"
    with pytest.raises(ValgapError, match="can be shown"):
        picture.sheet(["away.png"], home, Roots([home]))
