"""PRE208, with the statistic taken from real tensors."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.checks.cases import found, healthy, inputs, with_phase, without
from valgap.checks.preprocessing.scrambled_pixels import CHECK, margin, scrambled
from valgap.seams.looking.inputs import autocorrelation
from valgap.types import Clear, InputStats, NotApplicable

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
FOLDERS = {"clothing_mini": 224, "hymenoptera_256": 224, "sign_digits_mini": 100, "cifar10n_mini": 32}


def stats(images: np.ndarray) -> InputStats:  # type: ignore[type-arg]
    """Statistics of (N, C, H, W) images."""
    return replace(inputs(), autocorrelation=autocorrelation(images.astype(np.float32)).astype(np.float32))


def photographs(name: str) -> np.ndarray:  # type: ignore[type-arg]
    """Eight real images (8, H, W, 3), 0..1."""
    folder = DATA / name / "train"
    if not folder.is_dir():
        pytest.skip("no real images here")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    files = files[:: len(files) // 8][:8]
    side = FOLDERS[name]
    return np.stack([np.asarray(Image.open(f).convert("RGB").resize((side, side))) / 255 for f in files])


@pytest.mark.parametrize("name", FOLDERS)
def test_real_images_are_clear_and_their_reshaped_copies_are_found(name: str) -> None:
    images = photographs(name)
    sound = stats(images.transpose(0, 3, 1, 2))
    assert margin(sound) > 0
    wrong = stats(images.reshape(len(images), 3, *images.shape[1:3]))
    assert scrambled(wrong)
    assert found(CHECK.detect(with_phase(healthy(), "validation", inputs=wrong)))
    assert isinstance(CHECK.detect(with_phase(healthy(), "validation", inputs=sound)), Clear)


@pytest.mark.parametrize("name", FOLDERS)
def test_shuffled_pixels(name: str) -> None:
    images = photographs(name).transpose(0, 3, 1, 2)
    flat = images.reshape(len(images), 3, -1)
    shuffled = flat[:, :, np.random.default_rng(0).permutation(flat.shape[2])].reshape(images.shape)
    assert found(CHECK.detect(with_phase(healthy(), "train", inputs=stats(shuffled))))


def test_a_transposed_image_is_not_scrambled() -> None:
    images = photographs("clothing_mini").transpose(0, 3, 2, 1)
    assert isinstance(CHECK.detect(with_phase(healthy(), "validation", inputs=stats(images))), Clear)


def test_missing_parts() -> None:
    bare = without(without(healthy(), "train"), "validation")
    assert isinstance(CHECK.detect(bare), NotApplicable)
