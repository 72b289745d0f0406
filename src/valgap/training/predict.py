"""Classify images with a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from valgap.data.images import SUFFIXES, to_rgb
from valgap.engine.reading import read_pixels
from valgap.engine.split import Normalised
from valgap.errors import DataError
from valgap.models.backbones import head_of
from valgap.models.preprocessing import Preprocessing
from valgap.training.checkpoint import load as load_checkpoint
from valgap.training.known import Known, given_to

BATCH = 32
Picture = str | Path | Image.Image | npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Prediction:
    """The most probable class of one image; ``problem`` says why an image could not be read."""

    path: Path | None  # None for an image that was given as pixels
    label: str
    probability: float  # 0..1; 0 for an unreadable image
    probabilities: dict[str, float]
    problem: str | None = None
    nearness: float | None = None  # to training images, -1..1, where it was asked for
    unlike: bool = False  # whether it is like none of them


class Classifier:
    """A trained network with its classes and preprocessing."""

    def __init__(
        self,
        model: nn.Module,
        classes: Sequence[str],
        preprocessing: Preprocessing,
        temperature: float,
        flip: bool,
        run: Path | None = None,
    ) -> None:
        """``run``: the run directory, for what training images look like."""
        self.run, self.head = run, head_of(model)
        self.classes = tuple(classes)
        self.preprocessing, self.temperature, self.flip = preprocessing, temperature, flip
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        whole = Normalised(model, preprocessing.mean, preprocessing.std).eval()
        self.model = whole.to(self.device).to(memory_format=torch.channels_last)

    def predict(self, images: Sequence[Picture], *, tta: bool = False, none_of_these: bool = False) -> list[Prediction]:
        """One prediction for each image (files, PIL images, or (H, W, 3) uint8 arrays), in order.

        Args:
            tta: take the mean over the image and its mirror, if training found that flips keep the class.
            none_of_these: also tell what is like no training image: all but the least like 5 % of these themselves are known.

        Raises:
            RecordError: ``none_of_these``, of a run that did not keep what its training images look like.
        """
        known = Known.read(self.run) if none_of_these and self.run is not None else None
        results: list[Prediction] = []
        for start in range(0, len(images), BATCH):
            part = images[start : start + BATCH]
            with ThreadPoolExecutor(4) as pool:
                read = list(pool.map(self._read, part))
            readable = [r for r in read if isinstance(r, np.ndarray)]
            watched: AbstractContextManager[list[Any]] = given_to(self.head) if known is not None else nullcontext([])
            with watched as shown:
                rows = iter(self._probabilities(np.stack(readable), tta).tolist() if readable else [])
            near = iter(known.nearness(shown[0]).tolist() if known is not None and shown else [])
            for image, pixels in zip(part, read, strict=True):
                path = Path(image) if isinstance(image, (str, Path)) else None
                if isinstance(pixels, str):
                    results.append(Prediction(path, "unreadable", 0.0, {}, pixels))
                    continue
                row = next(rows)
                best = max(range(len(row)), key=row.__getitem__)
                shares = dict(zip(self.classes, row, strict=True))
                nearness = next(near) if known is not None else None
                unlike = known is not None and nearness is not None and nearness < known.least
                results.append(Prediction(path, self.classes[best], row[best], shares, None, nearness, unlike))
        return results

    def predict_proba(self, images: Sequence[Picture]) -> npt.NDArray[np.float64]:
        """(N, C) probabilities in the order of ``classes``; nan for an unreadable image."""
        rows = [[p.probabilities.get(c, float("nan")) for c in self.classes] for p in self.predict(images)]
        return np.array(rows, np.float64).reshape(len(rows), len(self.classes))

    def files(self, paths: Sequence[Path]) -> list[Path]:
        """The files themselves, and the images at any depth below folders, in order. Raises DataError for what is neither."""
        return [p for given in paths for p in expand(given)]

    def _read(self, image: Picture) -> npt.NDArray[np.uint8] | str:
        """(size, size, 3) pixels, or why there are none."""
        if isinstance(image, (str, Path)):
            try:
                return read_pixels(Path(image), self.preprocessing)
            except DataError as error:
                return str(error)
        picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
        return np.asarray(self.preprocessing.eval_square(to_rgb(picture)))

    def _probabilities(self, pixels: npt.NDArray[np.uint8], tta: bool) -> Any:
        views = [pixels, np.ascontiguousarray(pixels[:, :, ::-1])] if tta and self.flip else [pixels]
        with torch.inference_mode():
            logits = [self.model(torch.from_numpy(v).to(self.device)).float() / self.temperature for v in views]
            return torch.stack([one.softmax(1) for one in logits]).mean(0).cpu().numpy()


def load(run: str | Path) -> Classifier:
    """The classifier that a `valgap train` left in its run directory. Raises RecordError where there is none."""
    model, facts, preprocessing = load_checkpoint(Path(run))
    return Classifier(
        model, facts["classes"], preprocessing, float(facts.get("temperature", 1.0)), bool(facts.get("flip", False)), Path(run)
    )


def predict(run: Path, images: Sequence[Path]) -> list[Prediction]:
    """Predictions for files and for all images below folders, in order.

    Raises:
        RecordError: ``run`` holds no checkpoint.
        DataError: a path does not exist, or a folder holds no image.
    """
    classifier = load(run)
    return classifier.predict(classifier.files(images))


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
