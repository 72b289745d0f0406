"""Classify images with a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from valgap.data import read_rgb
from valgap.data.images import SUFFIXES
from valgap.errors import DataError
from valgap.train.checkpoint import load

BATCH = 32


@dataclass(frozen=True)
class Prediction:
    """The most probable class of one image; ``problem`` says why an image could not be read."""

    path: Path
    label: str
    probability: float  # 0..1; 0 for an unreadable image
    probabilities: dict[str, float]
    problem: str | None = None


def predict(run: Path, images: Sequence[Path]) -> list[Prediction]:
    """Predictions for files and for all images below folders, in order.

    Raises:
        RecordError: ``run`` holds no checkpoint.
        DataError: a path does not exist, or a folder holds no image.
    """
    model, facts, preprocessing = load(run)
    classes = [str(c) for c in facts["classes"]]
    transform = preprocessing.eval_transform()
    results: list[Prediction] = []
    paths = [p for given in images for p in expand(given)]
    for start in range(0, len(paths), BATCH):
        readable: list[tuple[Path, torch.Tensor]] = []
        for path in paths[start : start + BATCH]:
            try:
                readable.append((path, transform(read_rgb(path))))
            except DataError as error:
                results.append(Prediction(path, "unreadable", 0.0, {}, str(error)))
        if readable:
            with torch.inference_mode():
                probabilities = model(torch.stack([t for _, t in readable])).softmax(1)
            for (path, _), row in zip(readable, probabilities.tolist(), strict=True):
                best = max(range(len(classes)), key=row.__getitem__)
                results.append(Prediction(path, classes[best], row[best], dict(zip(classes, row, strict=True))))
    order = {path: i for i, path in enumerate(paths)}
    return sorted(results, key=lambda p: order[p.path])


def expand(path: Path) -> list[Path]:
    """The file itself, or the images at any depth below a folder. Raises DataError for neither."""
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not found:
            raise DataError(f"{path} holds no images ({', '.join(SUFFIXES[:4])}, ...)")
        return found
    if not path.is_file():
        raise DataError(f"no such image: {path}")
    return [path]
