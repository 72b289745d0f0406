"""Which samples of two runs are the same: by their names below their folders, else by their place in the data set."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

import numpy as np

from valgap.types import IntArray, Pass, Phase, RunRecord

# Samples without a file are named by their data set, its content's digest and their place: "Digits-94ac3c3b[7]".
CONTENT = re.compile(r"-[0-9a-f]{8}(?=\[)")
# Fewer common names than this, and the names tell nothing.
FEWEST_COMMON = 0.02
WORDS: Mapping[Phase, str] = {"train": "training", "validation": "validation", "other": "other"}


def name_of(run: RunRecord, sample: int) -> str:
    """A sample's name below the folder of its data set: a copy of the data elsewhere has the same names."""
    if not 0 <= sample < len(run.sample_names):
        return ""
    name = run.sample_names[sample]
    roots = [d.root.rstrip(os.sep) + os.sep for d in run.datasets.values() if d.root]
    return name[max((len(r) for r in roots if name.startswith(r)), default=0) :]


class Aligned:
    """Numbers for the samples of both runs, equal for equal samples of one phase."""

    def __init__(self, first: RunRecord, second: RunRecord) -> None:
        self.runs = (first, second)
        self._numbers: dict[tuple[int, Phase], dict[int, int]] = {}
        self.names: dict[Phase, list[str]] = {}
        self.by_place: set[Phase] = set()  # phases whose samples have no name in common
        self.disordered: set[Phase] = set()  # of them, those whose places hold other images in either run
        for phase in WORDS:
            self._align(phase)

    def keys(self, side: int, one: Pass) -> IntArray:
        """(N,) the number of each sample that the pass saw, -1 where it is not known. ``side``: 0 the first run, 1 the second."""
        numbers = self._numbers[side, one.phase]
        return np.array([numbers.get(s, -1) for s in one.samples.sample.tolist()], np.int64)

    @property
    def same_split(self) -> bool:
        """Whether both runs share the same named images out between training and validation, in whatever way."""
        names = [{name_of(run, i) for p in ("train", "validation") for i in _ids(run, p)} for run in self.runs]
        counts = [[len(_ids(run, p)) for p in ("train", "validation")] for run in self.runs]
        return not self.by_place and names[0] == names[1] and counts[0] == counts[1]

    def of_ids(self, side: int, phase: Phase, ids: IntArray) -> set[int]:
        """The numbers of samples by their ids."""
        numbers = self._numbers[side, phase]
        return {numbers[i] for i in ids.tolist() if i in numbers}

    def name(self, phase: Phase, number: int) -> str:
        """What a sample is called."""
        return self.names[phase][number]

    def _align(self, phase: Phase) -> None:
        ids = [_ids(run, phase) for run in self.runs]
        names = [{i: name_of(run, i) for i in own} for run, own in zip(self.runs, ids, strict=True)]
        if not _overlap(names):
            bare = [{i: CONTENT.sub("", n) for i, n in own.items()} for own in names]
            places = [_places(run, phase) for run in self.runs]
            if _overlap(bare):
                names = bare
                self.by_place.add(phase)
            elif places[0] and len(places[0]) == len(places[1]):
                # One record has learnt its samples' files, the other one was closed before.
                names = places
                self.by_place.add(phase)
        known: dict[str, int] = {}
        for side, own in enumerate(names):
            self._numbers[side, phase] = {i: known.setdefault(n, len(known)) for i, n in own.items() if n}
        self.names[phase] = list(known)


def _ids(run: RunRecord, phase: Phase) -> list[int]:
    """Ids of all samples that passes of a phase saw, or that their data sets hold."""
    found: set[int] = set()
    for one in run.of_phase(phase):
        found.update(one.samples.sample.tolist())
        data = run.datasets.get(one.dataset)
        if data is not None and data.sample is not None:
            found.update(data.sample.tolist())
    return sorted(i for i in found if i >= 0)


def _places(run: RunRecord, phase: Phase) -> dict[int, str]:
    """Ids by their places in the phase's data set; empty where it has several, or does not list its samples."""
    data = [run.datasets.get(i) for i in {p.dataset for p in run.of_phase(phase)}]
    if len(data) != 1 or data[0] is None or data[0].sample is None:
        return {}
    return {i: f"{data[0].kind}[{place}]" for place, i in enumerate(data[0].sample.tolist())}


def _overlap(names: list[dict[int, str]]) -> bool:
    first, second = (set(own.values()) for own in names)
    return len(first & second) >= max(1.0, FEWEST_COMMON * min(len(first), len(second)))
