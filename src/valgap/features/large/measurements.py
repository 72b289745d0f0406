"""``Measurements`` of a large set of images: tables on disk, each part kept as it is done, so that a killed check goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from valgap.features.large import kinds, ridge, wrong_labels
from valgap.features.large.near import EXACT_MOST, aligned, has_index, neighbours
from valgap.features.large.table import DiskFeatures, LookTable, kept
from valgap.features.look_pass import looked_at
from valgap.features.looking import NUMBERS, WORDS, ending_of, wrongly_named
from valgap.features.measurements import VIEWS, Progress
from valgap.features.pairs import ALIKE, all_alike, drawn_pairs, equal_places, pictures_of
from valgap.features.probes import judged_answers
from valgap.features.shift import shift
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
    Shift,
)

# Above so many images tables lie on disk. Up to here all is held in memory, some .11 MB an image.
LARGE = 20_000
WIDTH = sum(w for widths in VIEWS for w in widths)
ROW_BYTES = 14_900
# Rows are appended so many at a time: what a kill may lose.
APPENDED = 512
# Pairs of neighbours that are aligned between one keeping and the next.
SLAB = 200_000
Arrays = dict[str, npt.NDArray[np.generic]]
Part = TypeVar("Part")


class LargeMeasurements:
    """Implements ``types.CaseImages``. ``say`` is told what is being done; ``progress`` of each pass: done, of how many."""

    def __init__(self, rows: ImageRows, progress: Progress | None = None, say: Callable[[str], None] | None = None) -> None:
        self.rows = rows
        self.missing: dict[str, str] = {}
        self._progress = progress or (lambda done, total: None)
        self._say = say or (lambda text: None)

    @cached_property
    def _table(self) -> LookTable:
        """The table with every image in it."""
        from valgap.features.backbone import backbone_key

        table = LookTable(self.rows.paths, backbone_key())
        missing, total = table.missing, len(self.rows.paths)
        if len(missing):
            table.make_room(ROW_BYTES)
            done = total - len(missing)
            self._say(f"looking at {total:,} images" + (f", {done:,} of them seen before" if done else ""))
            paths = [self.rows.paths[i] for i in missing]
            start, waiting = 0, []
            for part in looked_at(paths, total, keep=False):
                waiting += part
                if len(waiting) >= APPENDED or start + len(waiting) == len(paths):
                    vectors = [s.features if s.features is not None else _UNREAD for s in waiting]
                    table.add(missing[start : start + len(waiting)].tolist(), [s.look for s in waiting], np.stack(vectors))
                    start, waiting = start + len(waiting), []
                    self._progress(done + start, total)
        table.refresh()
        return table

    @cached_property
    def _content(self) -> str:
        """A name of images, labels and split: parts are kept under it."""
        marks = self.rows.labels.tobytes() + self.rows.is_val.tobytes()
        return f"{self._table.content()}{hashlib.blake2b(marks, digest_size=8).hexdigest()}"

    def _keep(self, name: str, make: Callable[[], Arrays]) -> Arrays:
        """What ``make`` gives, read back where it was made of these very images before."""
        return kept(self._table.folder, name, self._content, make)

    @cached_property
    def _readable(self) -> npt.NDArray[np.bool_]:
        if not (readable := self._table.column("error") == b"").any():
            self.missing["embeddings"] = "no image could be read"
        return np.asarray(readable)

    @cached_property
    def unreadable(self) -> Mapping[int, str]:
        found: dict[int, str] = {}
        for places, values in self._table.blocks("error", np.flatnonzero(~self._readable)):
            found |= {int(i): raw.decode("utf-8", "replace") for i, raw in zip(places, values.tolist(), strict=True)}
        return found

    @cached_property
    def attributes(self) -> Attributes:
        numbers = self._table.column("numbers")
        found = {n: np.ascontiguousarray(numbers[:, i], np.float64) for i, n in enumerate(NUMBERS)}
        return Attributes(found, {w: self._table.words(w) for w in WORDS})

    @cached_property
    def oddities(self) -> Mapping[str, IntArray]:
        places: dict[str, list[int]] = {}
        formats = self.attributes.words["format"]
        for block, values in self._table.blocks("odd"):
            for i, raw in zip(block.tolist(), values.tolist(), strict=True):
                wrong = ["wrongly named"] if wrongly_named(ending_of(self.rows, i), formats[i]) else []
                for kind in [*(raw.decode().split(";") if raw else []), *wrong]:
                    places.setdefault(kind, []).append(i)
        return {kind: np.array(p, np.int64) for kind, p in sorted(places.items())}

    @cached_property
    def _features(self) -> DiskFeatures:
        return DiskFeatures(self._table, 0, WIDTH, self._readable)

    @cached_property
    def _embeddings(self) -> DiskFeatures:
        return DiskFeatures(self._table, 0, VIEWS[0][0], self._readable)

    @property
    def embeddings(self) -> FloatArray | None:
        # It is indexed as an array is, by rows: what checks of images do.
        return self._embeddings if self._readable.any() else None  # type: ignore[return-value]

    @cached_property
    def _sums(self) -> ridge.Sums | str:
        train = ridge.usable_train(self.rows, self._readable)
        if isinstance(train, str):
            return train
        self._say("probes on all training images")
        return ridge.sums_of(self._embeddings, self.rows, train, self._pictures)

    @cached_property
    def _chosen(self) -> ridge.Chosen:
        assert isinstance(self._sums, ridge.Sums)
        return ridge.chosen_penalty(self._sums)

    @cached_property
    def held_out(self) -> HeldOut | None:
        if isinstance(why := self._why_no_probe(), str):
            return self._or_missing("held_out", why)

        def make() -> Arrays:
            assert isinstance(self._sums, ridge.Sums)
            found = ridge.held_out(self._embeddings, self.rows, self._sums, self._chosen, self._readable)
            return {"answers": found.answers, "folds": found.folds}

        arrays = self._keep("held_out", make)
        return judged_answers(arrays["answers"], arrays["folds"], self.rows)  # type: ignore[arg-type]

    def _why_no_probe(self) -> str | None:
        found = ridge.usable_train(self.rows, self._readable)
        return found if isinstance(found, str) else None

    @cached_property
    def label_errors(self) -> LabelErrors | None:
        held = self.held_out
        if held is None:
            return self._or_missing("label_errors", self.missing["held_out"])

        def make() -> Arrays:
            self._say("labels: probes on a sample, then all images")
            found = wrong_labels.label_errors(self._features, self.rows, held, self._progress, self._keep)
            rates = [found.train_rate, found.val_rate, *found.train_interval, *found.val_interval]
            return {"wrong": found.wrong, "likely": found.likely, "rates": np.array(rates)}

        a = self._keep("label_errors", make)
        train, val, *ends = a["rates"].tolist()
        return LabelErrors(a["wrong"], a["likely"], train, val, (ends[0], ends[1]), (ends[2], ends[3]))  # type: ignore[arg-type]

    @cached_property
    def other_kinds(self) -> OtherKinds | None:
        def make() -> Arrays:
            self._say("images of another kind")
            found = kinds.other_kinds(self._features, self.rows, self._readable, self._progress, self._keep)
            if isinstance(found, str):
                return {"why": np.array(found)}
            seen = np.flatnonzero(np.isfinite(found.score))
            return {"places": seen, "score": found.score[seen], "name": np.array([found.name[i] for i in seen], "U100")}

        if not self._readable.any():
            return self._or_missing("other_kinds", self.missing["embeddings"])
        a = self._keep("other_kinds", make)
        if "why" in a:
            return self._or_missing("other_kinds", str(a["why"]))
        scores, names = np.full(len(self.rows.names), np.nan), [""] * len(self.rows.names)
        for i, score, name in zip(a["places"].tolist(), a["score"].tolist(), a["name"].tolist(), strict=True):
            scores[i], names[i] = score, name
        return OtherKinds(scores, tuple(names))

    @cached_property
    def shift(self) -> Shift | None:
        # A sample of both sides as it is, and the same one however large the set.
        if self.embeddings is None:
            return self._or_missing("shift", self.missing["embeddings"])
        return self._or_missing("shift", shift(self.embeddings, self.attributes, self.rows, self._pictures))

    @cached_property
    def learning_curve(self) -> LearningCurve | None:
        if isinstance(why := self._why_no_probe(), str):
            return self._or_missing("learning_curve", why)

        def make() -> Arrays:
            assert isinstance(self._sums, ridge.Sums)
            found = ridge.learning_curve(self._embeddings, self.rows, self._sums, self._chosen[0], self._readable)
            return {"sizes": found.sizes, "accuracies": found.accuracies, "on_val": np.array(found.on_val)}

        a = self._keep("learning_curve", make)
        return LearningCurve(a["sizes"], a["accuracies"], bool(a["on_val"]))  # type: ignore[arg-type]

    @cached_property
    def pairs(self) -> tuple[ImagePair, ...] | None:
        exact = self._exact_pairs()
        if not self._readable.any():
            return tuple(exact)
        known = {(p.first, p.second) for p in exact}
        copies = np.zeros(len(self.rows.names), bool)
        copies[[p.second for p in exact if self.rows.is_val[p.first] == self.rows.is_val[p.second]]] = True
        alone = np.flatnonzero(self._readable & ~copies)
        if len(alone) < 3 or self._alike(alone):
            return tuple(exact)

        near = [p for p in self._near_pairs(alone) if (p.first, p.second) not in known]
        return (*exact, *sorted(near, key=lambda p: (-p.similarity, p.first, p.second)))

    @cached_property
    def _pictures(self) -> IntArray:
        """(N,) the same number for images that show one picture."""
        return pictures_of(self.pairs or (), len(self.rows.names))

    def _exact_pairs(self) -> list[ImagePair]:
        """Pairs of equal bytes, then of equal pixels."""
        digests, pixels = (_halves(self._table.column(name)) for name in ("digest", "pixels"))
        exact = _equal_of(self.rows, digests, "same_bytes")
        known = {(p.first, p.second) for p in exact}
        same = _equal_of(self.rows, pixels, "same_pixels", np.asarray(pixels.any(1)))  # no digest: the file cannot be decoded
        return exact + [p for p in same if (p.first, p.second) not in known]

    def _alike(self, alone: IntArray) -> bool:
        first, second = drawn_pairs(alone)
        places, back = np.unique(np.concatenate([first, second]), return_inverse=True)
        thumbs = np.asarray(self._table.take("thumb", places), np.uint8)
        found = all_alike(thumbs, *np.split(back, 2))
        if found:
            self.missing["near_pairs"] = ALIKE
        return found

    def _near_pairs(self, alone: IntArray) -> list[ImagePair]:
        def search() -> Arrays:
            slow = len(alone) > EXACT_MOST and not has_index()
            more = ": each image is compared with every other; pip install 'valgap[large]' makes it quick" if slow else ""
            self._say(f"near copies: neighbours{more}")
            first, second, mean = neighbours(self._embeddings, alone, self._progress)
            return {"first": first, "second": second, "mean": mean}

        found = self._keep("neighbours", search)
        near: list[ImagePair] = []
        total = len(found["first"])
        for start in range(0, total, SLAB):

            def make(start: int = start) -> Arrays:
                if start == 0:
                    self._say("near copies: pictures of neighbours are aligned")
                first, second = (np.asarray(found[end][start : start + SLAB], np.int64) for end in ("first", "second"))
                tell = lambda done, _: self._progress(start + done, total)  # noqa: E731
                pairs = aligned(self._table, self._embeddings, first, second, np.asarray(found["mean"], np.float32), tell)
                ends = np.array([(p.first, p.second) for p in pairs], np.int64).reshape(-1, 2)
                return {"ends": ends, "similarity": np.array([p.similarity for p in pairs])}

            a = self._keep(f"near{start // SLAB}", make)
            near += [ImagePair(i, j, "near", s) for (i, j), s in zip(a["ends"].tolist(), a["similarity"].tolist(), strict=True)]
        return near

    def _or_missing(self, name: str, found: Part | str) -> Part | None:
        if isinstance(found, str):
            self.missing[name] = found
            return None
        return found


_UNREAD = np.full(WIDTH, np.nan, np.float16)


def _halves(digests: npt.NDArray[np.generic]) -> npt.NDArray[np.uint64]:
    """(N, 2) whole numbers for digests (N, 16) of bytes."""
    return np.ascontiguousarray(digests).view(np.uint64)


def _equal_of(
    rows: ImageRows, names: npt.NDArray[np.uint64], kind: str, among: npt.NDArray[np.bool_] | None = None
) -> list[ImagePair]:
    """Pairs of equal names (N, 2): only those that come more than once are gone through one by one."""
    order = np.lexsort((names[:, 1], names[:, 0]))
    equal = (names[order[1:]] == names[order[:-1]]).all(1)
    again = np.zeros(len(names), bool)
    again[order[1:][equal]] = True
    again[order[:-1][equal]] = True
    if among is not None:
        again &= among
    places = np.flatnonzero(again)
    keys: list[Hashable] = [tuple(pair) for pair in names[places].tolist()]
    return equal_places(rows, places.tolist(), keys, kind)
