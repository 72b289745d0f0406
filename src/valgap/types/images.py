"""What is measured on image files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from valgap.types.arrays import FloatArray, IntArray


@dataclass(frozen=True)
class ImageRows:
    """The images of train and validation whose files are there; N of them, train first."""

    names: tuple[str, ...]  # (N,) as the record, the folder or the list names them
    paths: tuple[str, ...]  # (N,) where the files are
    labels: IntArray  # (N,) int64 index into ``classes``, -1 unknown
    is_val: npt.NDArray[np.bool_]  # (N,)
    classes: tuple[str, ...]
    absent: int = 0  # further images that were named but whose files are not there

    def part(self, val: bool) -> IntArray:
        """Places of one split, (n,)."""
        return np.flatnonzero(self.is_val == val)


@dataclass(frozen=True)
class Attributes:
    """By-products of each image file, (N,) each; nan (or "") where the file could not be read.

    ``numbers`` keys: ``width``, ``height`` (pixels), ``aspect`` (width / height), ``bytes``, ``bits_per_pixel``, ``brightness``
    (mean grey, 0..1), ``contrast`` (standard deviation of grey, 0..1), ``sharpness`` (log10 of the variance of the Laplacian on a
    grey image of 128 px), ``colourfulness`` (Hasler and Suesstrunk 2003, of values 0..255), ``jpeg_quality`` (1..100, nan for
    other formats), ``border`` (share of rows and columns at the edges that are of one colour, 0..1), ``rotated`` (1 where
    EXIF turns the image), ``grey`` (1 where all channels agree).
    ``words`` keys: ``format``, ``mode``, ``camera``.
    """

    numbers: Mapping[str, FloatArray]
    words: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class ImagePair:
    """Two images that show the same picture; places in ImageRows, ``first`` in train where the pair spans the split."""

    first: int
    second: int
    kind: Literal["same_bytes", "same_pixels", "near"]
    similarity: float  # 0..1; 1 for the exact kinds


@dataclass(frozen=True)
class HeldOut:
    """The class of each image by probes that never saw its label: out of fold on train, train-fitted on val."""

    answers: IntArray  # (N,) the most probable class; -1 where there is no embedding
    correct: npt.NDArray[np.bool_]  # (N,) argmax equals the label
    folds: IntArray  # (N,) fold of each train image, -1 for val and for unlabelled images
    train_accuracy: float  # held-out accuracy on train, 0..1
    val_accuracy: float  # nan without labelled validation images


@dataclass(frozen=True)
class LabelErrors:
    """What held-out probes that allow for wrong labels say of each label."""

    wrong: FloatArray  # (N,) probability that the label is wrong, 0..1; nan where it cannot be said
    likely: IntArray  # (N,) most probable class; -1 where it cannot be said
    train_rate: float  # estimated share of wrong labels among the training images, 0..1
    val_rate: float  # the same for val; nan without labelled validation images
    train_interval: tuple[float, float]  # 90 % interval of train_rate
    val_interval: tuple[float, float]  # of val_rate


@dataclass(frozen=True)
class OtherKinds:
    """What the pretrained network calls images instead of their class: other things of the same kind, of no class here."""

    score: FloatArray  # (N,) probability of the most probable one, 0..1; nan where it was not looked for
    name: tuple[str, ...]  # (N,) its name in ImageNet, such as "fly"; "" where there is no score


@dataclass(frozen=True)
class Shift:
    """How well a classifier tells validation images from training images of the same class. F features, A attributes."""

    auc: float  # held-out area under the curve of the features; 0.5: not at all
    p_value: float  # against labels of the split permuted within classes
    foreign: FloatArray  # (n val,) held-out score of each validation image, high: unlike train
    attribute_auc: Mapping[str, float]  # per attribute: share of (val, train) pairs of a class where val's is larger
    attribute_p: Mapping[str, float]  # permutation p-value of each
    share_p: float  # p-value of equal class shares (permutations); nan without labels on both sides
    shares: FloatArray  # (2, C) class shares of train and val
    within_class: bool  # False: some images have no label, so classes are not held apart


@dataclass(frozen=True)
class LearningCurve:
    """Validation accuracy (held-out train where there is no val) of probes fitted on growing shares of train."""

    sizes: IntArray  # (S,) training images
    accuracies: FloatArray  # (S, R) over R random subsets
    on_val: bool


class CaseImages(Protocol):
    """The images of a Case. Each part is measured when it is first asked for, and once.

    A part is None where it cannot be had; ``missing`` then says why under the part's name.
    """

    @property
    def rows(self) -> ImageRows: ...
    @property
    def missing(self) -> Mapping[str, str]: ...
    @property
    def unreadable(self) -> Mapping[int, str]:
        """Place of each file that cannot be decoded -> why."""

    @property
    def attributes(self) -> Attributes: ...
    @property
    def oddities(self) -> Mapping[str, IntArray]:
        """Kind of oddity (palette, CMYK, alpha, EXIF-rotated, truncated, wrongly named...) -> places."""

    @property
    def embeddings(self) -> FloatArray | None:
        """(N, D) float32 features of the bundled backbone; rows of unreadable files are nan.

        Of a large set they lie on disk: index them by places, and only as many as memory holds.
        """

    @property
    def held_out(self) -> HeldOut | None: ...
    @property
    def label_errors(self) -> LabelErrors | None: ...
    @property
    def other_kinds(self) -> OtherKinds | None: ...
    @property
    def shift(self) -> Shift | None: ...
    @property
    def pairs(self) -> tuple[ImagePair, ...] | None: ...
    @property
    def learning_curve(self) -> LearningCurve | None: ...
