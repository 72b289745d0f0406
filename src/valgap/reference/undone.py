"""What is done to all images of a side alike, told by undoing it: turned back, red and blue exchanged, negatives made positive.

It needs no word on which file an image is, only its class: a probe that learned from the files of the other side, read
soundly, is asked about the images as seen and undone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from valgap.reference.probing import Answers, answers, gained, likely_above
from valgap.types import FloatArray, IntArray, Measured

Pixels = npt.NDArray[np.uint8]
Change = Callable[[Pixels], Pixels]
# In words that stand after "images".
WAYS: dict[str, Change] = {
    "lie turned by a quarter": lambda x: np.rot90(x, 3, axes=(1, 2)),
    "stand upside down": lambda x: np.rot90(x, 2, axes=(1, 2)),
    "lie turned by three quarters": lambda x: np.rot90(x, 1, axes=(1, 2)),
    "come with red and blue exchanged": lambda x: x[..., ::-1],
    "come as negatives": lambda x: 255 - x,
}
# Points by which the probe must know the images better where it is undone, beyond what it gains on the files so.
LEAST_POINTS = 8.0
LIKELY = 0.5
# Of as many ways one may seem to help by chance: 95 % intervals are widened to 99 %.
WIDER = 2.58 / 1.96


@dataclass(frozen=True)
class Undone:
    """What was done to the images; what a probe says of them as seen and undone."""

    what: str
    undo: Change
    before: Answers
    after: Answers
    likely: float  # 0..1 that it truly knows them LEAST_POINTS better


def undone(
    under: Callable[[Change], FloatArray],
    files_under: Callable[[Change], FloatArray],
    labels: IntArray,
    taught: tuple[FloatArray, IntArray],
) -> Undone | None:
    """The way that makes the images best known where it is undone, where it does so clearly.

    Args:
        under: features (n, D) of the images under a change of their pixels (n, h, w, 3).
        files_under: the same of their files, or of files of their classes, read soundly: what a change does to these is no
            fault of the program's.
        labels: (n,) of them.
        taught: features (m, D) and labels (m,) of other images, read soundly from their files.
    """
    classes = int(max(labels.max(), taught[1].max())) + 1
    ways = {"": _nothing, **WAYS}
    asked = {what: (under(way), labels) for what, way in ways.items()}
    said = answers(*taught, asked, classes)
    before = said.pop("")
    best = max(said, key=lambda what: said[what].accuracy)
    points, nats = gained(before, said[best])
    if likely_above(points, LEAST_POINTS) <= LIKELY or nats.value <= 0:
        return None
    of_files = answers(*taught, {"": (files_under(_nothing), labels), best: (files_under(WAYS[best]), labels)}, classes)
    same, _ = gained(of_files[""], of_files[best])
    half = WIDER * float(np.hypot(points.high - points.value, same.high - same.value))
    value = points.value - max(0.0, same.value)
    likely = likely_above(Measured(value, value - half, value + half), LEAST_POINTS)
    return Undone(best, WAYS[best], before, said[best], likely) if likely > LIKELY else None


def _nothing(pixels: Pixels) -> Pixels:
    return pixels
