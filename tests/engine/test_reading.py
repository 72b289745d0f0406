"""Fast reading against the reference transform, on photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms

from valgap.data import read_rgb
from valgap.engine.reading import read_pixels
from valgap.models.preprocessing import Preprocessing, mode_of

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "clothing_mini"


def reference(path: Path, p: Preprocessing) -> np.ndarray:
    steps = [transforms.Resize(p.short_side, mode_of(p.interpolation)), transforms.CenterCrop(p.size)]
    return np.asarray(transforms.Compose(steps)(read_rgb(path)), np.int16)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("width", "height"), [(500, 375), (333, 500), (224, 224), (97, 61), (256, 300)])
def test_small_photographs_are_the_reference_to_two_grey_levels(
    interpolation: str, width: int, height: int, tmp_path: Path
) -> None:
    grain = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    Image.fromarray(grain).resize((width, height), Image.Resampling.BICUBIC).save(tmp_path / "a.png")
    p = Preprocessing(224, 0.875, interpolation, (0.5,) * 3, (0.5,) * 3)
    difference = np.abs(read_pixels(tmp_path / "a.png", p) - reference(tmp_path / "a.png", p))
    assert difference.max() <= 2
    assert difference.mean() < 0.2
    assert np.array_equal(read_pixels(tmp_path / "a.png", p, "flipped")[:, ::-1], read_pixels(tmp_path / "a.png", p))


def test_reduced_decoding_stays_within_its_tolerance() -> None:
    if not DATA.is_dir():
        pytest.skip("the real images are not here")
    p = Preprocessing(64, 0.875, "bicubic", (0.5,) * 3, (0.5,) * 3)  # 400 x 533: decoded at half size
    paths = sorted((DATA / "val" / "hat").iterdir())[:6]
    assert read_rgb(paths[0], 146).width == read_rgb(paths[0]).width // 2
    differences = np.concatenate([np.abs(read_pixels(f, p) - reference(f, p)).ravel() for f in paths])
    assert differences.mean() < 1.0
    assert np.quantile(differences, 0.999) <= 16
