"""Images of strangers: nothing is started for them, nothing is waited for, and odd values make no noise."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from valgap.data.contents import read_content
from valgap.data.images import read_rgb, read_small
from valgap.errors import DataError
from valgap.features.looking import look_at

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n%%EOF\n"


def test_no_program_is_started_for_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import EpsImagePlugin

    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # it remembers whether there is one
    (tmp_path / "photo.jpg").write_bytes(EPS)
    for read in (read_rgb, lambda p: read_small(p, 64)):
        with pytest.raises(DataError, match="no readable image"):
            read(tmp_path / "photo.jpg")
    assert look_at(EPS).error is not None
    assert not (tmp_path / "started").exists()


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", Path("/dev/zero"), tmp_path):
        with pytest.raises(DataError):
            read_rgb(path)  # a pipe would wait for ever
        with pytest.raises(OSError):
            read_content(path)
    with pytest.raises(OSError, match="no file has such a name"):
        read_content("a\0b")


def test_values_that_are_no_numbers_are_black(tmp_path: Path) -> None:
    values = np.full((8, 8), 0.5, np.float32)
    values[0, 0], values[0, 1], values[0, 2] = np.nan, np.inf, -np.inf
    Image.fromarray(values).save(tmp_path / "x.tif")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = np.asarray(read_rgb(tmp_path / "x.tif"))
    assert pixels[0, :3].max() == 0 and set(pixels[1:].ravel()) == {127}


def test_an_image_whose_later_frames_are_damaged_is_no_damaged_image(monkeypatch: pytest.MonkeyPatch) -> None:
    from io import BytesIO

    from PIL import GifImagePlugin

    def broken(image: object) -> int:
        raise TypeError("Missing dimensions")

    stream = BytesIO()
    Image.new("P", (30, 30), 3).save(stream, "GIF")
    monkeypatch.setattr(GifImagePlugin.GifImageFile, "n_frames", property(broken))
    assert look_at(stream.getvalue()).error is None
