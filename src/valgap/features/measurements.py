"""The images of a Case, measured lazily: one pass over the files, then everything that follows from it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from valgap.features import probes
from valgap.features.labels import label_errors
from valgap.features.look_pass import looked_at
from valgap.features.looking import NUMBERS, THUMB_SIDE, WORDS, Look, ending_of, wrongly_named
from valgap.features.pairs import pictures_of, same_pictures
from valgap.features.shift import shift
from valgap.features.source import rows_of_path, rows_of_run, some_rows
from valgap.types import (
    Attributes,
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

# Widths of the backbone's features: of the plain view and of the larger mirror image, each by depth, the last first.
VIEWS = ((1280, 320, 192), (1280, 320, 192))
if TYPE_CHECKING:
    from valgap.features.large.measurements import LargeMeasurements

Progress = Callable[[int, int], None]
Part = TypeVar("Part")


class Measurements:
    """Implements ``types.CaseImages``. Each part is made when first asked for; ``progress`` is told of images done."""

    def __init__(self, rows: ImageRows, progress: Progress | None = None) -> None:
        self.rows = rows
        self.missing: dict[str, str] = {}
        self._progress = progress or (lambda done, total: None)

    @cached_property
    def _seen(self) -> tuple[list[Look], npt.NDArray[np.float16] | None, npt.NDArray[np.uint8]]:
        """(looks without pictures, features (N, D) or None, thumbnails (N, T, T, 3)), from one pass over the files."""
        looks: list[Look] = []
        features: list[npt.NDArray[np.float16] | None] = []
        thumbs = np.zeros((len(self.rows.paths), THUMB_SIDE, THUMB_SIDE, 3), np.uint8)
        for part in looked_at(self.rows.paths, len(self.rows.paths), keep=True):
            for seen in part:
                if seen.look.thumb is not None:
                    thumbs[len(looks)] = seen.look.thumb
                looks.append(replace(seen.look, thumb=None))
                features.append(seen.features)
            self._progress(len(looks), len(self.rows.paths))
        width = next((len(f) for f in features if f is not None), 0)
        if not width:
            self.missing["embeddings"] = "no image could be read"
            return looks, None, thumbs
        table = np.full((len(features), width), np.nan, np.float16)
        for place, vector in enumerate(features):
            if vector is not None:
                table[place] = vector
        return looks, table, thumbs

    @cached_property
    def unreadable(self) -> Mapping[int, str]:
        return {i: look.error for i, look in enumerate(self._seen[0]) if look.error is not None}

    @cached_property
    def attributes(self) -> Attributes:
        looks = self._seen[0]
        numbers = {n: np.array([look.numbers.get(n, np.nan) for look in looks]) for n in NUMBERS}
        return Attributes(numbers, {w: tuple(look.words.get(w, "") for look in looks) for w in WORDS})

    @cached_property
    def oddities(self) -> Mapping[str, IntArray]:
        places: dict[str, list[int]] = {}
        for i, look in enumerate(self._seen[0]):
            kinds = [
                *look.odd,
                *(["wrongly named"] if wrongly_named(ending_of(self.rows, i), look.words.get("format", "")) else []),
            ]
            for kind in kinds:
                places.setdefault(kind, []).append(i)
        return {kind: np.array(p, np.int64) for kind, p in sorted(places.items())}

    @cached_property
    def embeddings(self) -> FloatArray | None:
        table = self._seen[1]
        return table[:, : VIEWS[0][0]].astype(np.float32) if table is not None else None

    @property
    def views(self) -> list[list[FloatArray]]:
        """The features of each view of the images by depth, the last first, each (N, D) float32; none where none was read."""
        table = self._seen[1]
        if table is None:
            return []
        ends = np.cumsum([0, *(w for widths in VIEWS for w in widths)])
        blocks = iter(table[:, i:j].astype(np.float32) for i, j in pairwise(ends.tolist()))
        return [[next(blocks) for _ in widths] for widths in VIEWS]

    @cached_property
    def held_out(self) -> HeldOut | None:
        if self.embeddings is None:
            return self._or_missing("held_out", self.missing["embeddings"])
        return self._or_missing("held_out", probes.held_out(self.embeddings, self.rows, self.pictures))

    @cached_property
    def label_errors(self) -> LabelErrors | None:
        held = self.held_out
        if held is None or self.embeddings is None:
            return self._or_missing("label_errors", self.missing["held_out"])
        return label_errors(self.views, self.rows, held)

    @cached_property
    def other_kinds(self) -> OtherKinds | None:
        from valgap.features.other_kinds import other_kinds

        last = [view[0] for view in self.views]
        found = other_kinds(last, self.rows, self._progress) if last else self.missing["embeddings"]
        return self._or_missing("other_kinds", found)

    @cached_property
    def shift(self) -> Shift | None:
        if self.embeddings is None:
            return self._or_missing("shift", self.missing["embeddings"])
        return self._or_missing("shift", shift(self.embeddings, self.attributes, self.rows, self.pictures))

    @cached_property
    def learning_curve(self) -> LearningCurve | None:
        found = probes.learning_curve(self.embeddings, self.rows) if self.embeddings is not None else self.missing["embeddings"]
        return self._or_missing("learning_curve", found)

    @cached_property
    def pairs(self) -> tuple[ImagePair, ...] | None:
        looks, _, thumbs = self._seen
        return same_pictures(self.rows, looks, thumbs, self.embeddings, lambda why: self.missing.update(near_pairs=why))

    @cached_property
    def pictures(self) -> IntArray:
        """(N,) the same number for images that show one picture: as they are no two draws, tests take them as one."""
        return pictures_of(self.pairs or (), len(self.rows.names))

    def _or_missing(self, name: str, found: Part | str) -> Part | None:
        if isinstance(found, str):
            self.missing[name] = found
            return None
        return found


def images_of_path(
    data: str | os.PathLike[str], progress: Progress | None = None, say: Callable[[str], None] | None = None
) -> Measurements | LargeMeasurements:
    """The images of a folder or list; of more than LARGE images the tables lie on disk.

    Raises:
        DataError: ``data`` holds no image, or is a list that cannot be read.
    """
    from valgap.features.large.measurements import LARGE, LargeMeasurements

    rows = rows_of_path(data)
    return LargeMeasurements(rows, progress, say) if len(rows.names) > LARGE else Measurements(rows, progress)


def images_of_run(run: RunRecord, at_most: int, progress: Progress | None = None) -> Measurements | None:
    """The images that a run trained and validated on; None where no file of them is there, or more than ``at_most``.

    Of a run that was cut short on purpose, ``at_most`` of them.
    """
    rows = rows_of_run(run) if at_most > 0 else None
    if rows is not None and run.shortened is not None and len(rows.names) > at_most:
        rows = some_rows(run, rows, at_most)
    return Measurements(rows, progress) if rows is not None and len(rows.names) <= at_most else None
