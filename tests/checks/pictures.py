"""Measured images as plain arrays, for checks: a sound set, and changes to it. Features are two Gaussian clouds a class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tests.checks.cases import healthy
from valgap.features import probes
from valgap.features.labels import label_errors
from valgap.features.shift import shift
from valgap.types import (
    Attributes,
    Case,
    FloatArray,
    HeldOut,
    ImagePair,
    ImageRows,
    IntArray,
    LabelErrors,
    LearningCurve,
    OtherKinds,
    RunRecord,
    Shift,
)

CLASSES = ("ants", "bees", "cats", "dogs")
DIMENSIONS = 24


@dataclass
class Pictures:
    """Implements ``types.CaseImages`` on arrays; what follows from features is computed by the real functions."""

    rows: ImageRows
    embeddings: FloatArray | None
    attributes: Attributes
    pairs: tuple[ImagePair, ...] | None = ()
    unreadable: Mapping[int, str] = field(default_factory=dict)
    oddities: Mapping[str, IntArray] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    other_kinds: OtherKinds | None = None

    def _found(self, name: str, found: Any) -> Any:
        if isinstance(found, str):
            self.missing[name] = found
            return None
        return found

    @property
    def held_out(self) -> HeldOut | None:
        found: HeldOut | None = self._found(
            "held_out", "features" if self.embeddings is None else probes.held_out(self.embeddings, self.rows)
        )
        return found

    @property
    def learning_curve(self) -> LearningCurve | None:
        found: LearningCurve | None = self._found(
            "learning_curve", "features" if self.embeddings is None else probes.learning_curve(self.embeddings, self.rows)
        )
        return found

    @property
    def label_errors(self) -> LabelErrors | None:
        held = self.held_out
        return label_errors([[self.embeddings]], self.rows, held) if held is not None and self.embeddings is not None else None

    @property
    def shift(self) -> Shift | None:
        found: Shift | None = self._found(
            "shift", "features" if self.embeddings is None else shift(self.embeddings, self.attributes, self.rows)
        )
        return found


def attributes(n: int, rng: np.random.Generator) -> Attributes:
    """What n photographs of one camera look like."""
    numbers = {
        "width": np.full(n, 400.0), "height": np.full(n, 300.0), "aspect": np.full(n, 4 / 3),
        "bytes": rng.normal(40_000, 4_000, n).round(), "bits_per_pixel": rng.normal(2.7, 0.3, n),
        "brightness": rng.normal(0.45, 0.08, n), "contrast": rng.normal(0.22, 0.03, n), "sharpness": rng.normal(2.5, 0.2, n),
        "colourfulness": rng.normal(30, 8, n), "jpeg_quality": np.full(n, 90.0), "border": np.zeros(n), "rotated": np.zeros(n),
        "grey": np.zeros(n),
    }  # fmt: skip
    return Attributes(numbers, {"format": ("JPEG",) * n, "mode": ("RGB",) * n, "camera": ("",) * n})


def pictures(train: int = 200, val: int = 100, *, apart: float = 3.0, seed: int = 0) -> Pictures:
    """A sound set of four classes whose centres lie ``apart`` standard deviations from the middle."""
    rng = np.random.default_rng(seed)
    n = train + val
    labels = np.arange(n) % len(CLASSES)
    centres = rng.normal(size=(len(CLASSES), DIMENSIONS))
    centres *= apart / np.linalg.norm(centres, axis=1, keepdims=True)
    embeddings = (centres[labels] + rng.normal(size=(n, DIMENSIONS))).astype(np.float32)
    is_val = np.arange(n) >= train
    names = tuple(f"{'val' if v else 'train'}/{CLASSES[y]}/{i}.jpg" for i, (v, y) in enumerate(zip(is_val, labels, strict=True)))
    rows = ImageRows(names, names, labels.astype(np.int64), is_val, CLASSES)
    return Pictures(rows, embeddings, attributes(n, rng))


def relabelled(images: Pictures, labels: IntArray) -> Pictures:
    """The same pictures under other labels."""
    return replace(images, rows=replace(images.rows, labels=np.asarray(labels, np.int64)))


def case(images: Pictures) -> Case:
    """A Case of images alone."""
    return Case(RunRecord.empty("photos"), images)


def of_run(images: Pictures) -> Case:
    """The sound run with these pictures."""
    return Case(healthy().run, images)


def two_classes(wrong: float, train: int = 160, val: int = 100) -> Pictures:
    """Two classes of which this share of the training labels is wrong."""
    images = pictures(train, val, apart=7)
    labels = images.rows.labels % 2
    centres = np.array([images.embeddings[images.rows.labels == c].mean(0) for c in (0, 1)])  # type: ignore[index]
    rng = np.random.default_rng(4)
    embeddings = (centres[labels] + rng.normal(size=(train + val, DIMENSIONS))).astype(np.float32)
    turned = np.zeros(train + val, bool)
    turned[rng.permutation(train)[: round(wrong * train)]] = True
    rows = replace(images.rows, labels=np.where(turned, 1 - labels, labels), classes=CLASSES[:2])
    return replace(images, rows=rows, embeddings=embeddings)
