"""What a report shows beside the diagnosis, made ready by valgap.exhibits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from valgap.types.arrays import IntArray
from valgap.types.diagnosis import Accuracy


@dataclass(frozen=True)
class Series:
    """One line of a chart; all tuples have the same length, ``low`` and ``high`` may be empty."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class ClassResult:
    """One class on the last validation pass."""

    name: str
    recall: Accuracy
    answers: int  # how often the model answered with it


@dataclass(frozen=True)
class Confusion:
    """Counts of (given, answered) on the last validation pass; of many classes, those most often confused."""

    classes: tuple[str, ...]
    counts: IntArray  # (C, C): rows as given, columns as answered
    left_out: int  # classes that are not shown


@dataclass(frozen=True)
class CalibrationBin:
    """Validation images whose answer was given with a probability within (low, high], all 0..1."""

    low: float
    high: float
    n: int
    confidence: float  # mean probability of the answers
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """How far the probabilities of the last validation pass can be believed."""

    bins: tuple[CalibrationBin, ...]
    error: float  # expected calibration error, 0..1


@dataclass(frozen=True)
class Picture:
    """One image on a page."""

    title: str  # its path, as recorded
    lines: tuple[str, ...]  # what is said of it: labels, score, role
    source: str  # a data: address; empty where there is no picture
    problem: str = ""  # why there is none


@dataclass(frozen=True)
class Gallery:
    """Pictures that one statement is about; those of a row belong together."""

    title: str
    rows: tuple[tuple[Picture, ...], ...]
    total: int  # rows that there are; no more than a page holds are shown


@dataclass(frozen=True)
class Setting:
    """One thing that was set, in words."""

    group: str
    name: str
    value: str


@dataclass(frozen=True)
class Exhibits:
    """Everything a report shows beside the diagnosis. A part that the record does not hold is empty or None."""

    answer: str  # what happened, in two sentences
    stages: Mapping[str, Gallery]  # by stage at fault: files beside what the network saw of them
    accuracy: tuple[Series, ...]  # fractions over epochs
    loss: tuple[Series, ...]  # nats over epochs
    confusion: Confusion | None
    classes: tuple[ClassResult, ...]
    calibration: Calibration | None
    data_size: tuple[Series, ...]  # accuracy over the number of training images
    galleries: Mapping[str, Gallery]  # by the code of a cause
    seen: tuple[Gallery, ...]  # what the network saw in training and in validation
    mistakes: Gallery | None  # confident wrong answers on validation
    remedies: Mapping[str, str]  # code (or a unified diff) by the code of a cause
    settings: tuple[Setting, ...]


@dataclass(frozen=True)
class Difference:
    """A setting that two runs do not share; None where a run has none of that name."""

    group: str
    name: str
    first: str | None
    second: str | None
