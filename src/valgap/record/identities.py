"""The same data set, model or sample in several processes: one number for each in the merged record."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from valgap.types import (
    DatasetInfo,
    IntArray,
    LoaderInfo,
    ModelInfo,
    OptimizerInfo,
    Pass,
    RunRecord,
    SampleTable,
    StepTable,
)

T = TypeVar("T")
# A sample without a path: CLASS-DIGEST[INDEX]; the digest of a data set that tells nothing may differ between processes.
NUMBERED = re.compile(r"(.+)-([0-9a-f]{8})\[(\d+)\]")


@dataclass(frozen=True)
class Numbers:
    """What the numbers in one part are in the merged record."""

    samples: IntArray  # (n,)
    datasets: Mapping[int, int]
    loaders: Mapping[int, int]
    models: Mapping[int, int]
    optimizers: Mapping[int, int]

    def ids(self, old: IntArray) -> IntArray:
        """The merged sample ids; -1 stays."""
        known = old >= 0
        new = np.full(len(old), -1, np.int32)
        new[known] = self.samples[old[known]]
        return new

    def table(self, table: SampleTable) -> SampleTable:
        """The table with merged sample ids."""
        return replace(table, sample=self.ids(table.sample))

    def steps(self, table: StepTable) -> StepTable:
        """The table with merged optimizers."""
        return replace(table, optimizer=np.array([self.optimizers.get(o, -1) for o in table.optimizer.tolist()], np.int32))

    def of(self, one: Pass) -> Pass:
        """The pass with merged numbers; its place and state are still those of its part."""
        return replace(
            one,
            dataset=self.datasets.get(one.dataset, -1),
            loader=self.loaders.get(one.loader, -1),
            model=self.models.get(one.model, -1),
            samples=self.table(one.samples),
            steps=self.steps(one.steps),
        )


class Identities:
    """Takes in part after part; the first one keeps its numbers."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._places: dict[str, int] = {}
        self.datasets: dict[int, DatasetInfo] = {}
        self._data_keys: dict[int, Hashable] = {}
        self.loaders: dict[int, LoaderInfo] = {}
        self.models: dict[int, ModelInfo] = {}
        self.optimizers: dict[int, OptimizerInfo] = {}

    def add(self, record: RunRecord) -> Numbers:
        """The numbers of this part in the merged record."""
        keys = {i: _data_key(d, record.sample_names) for i, d in record.datasets.items()}
        datasets = _matched(self._data_keys, keys, lambda key: key)
        samples = self._add_names(record.sample_names, self._same_places(record, datasets))
        here = {
            i: d if d.sample is None else replace(d, sample=np.where(d.sample >= 0, samples[d.sample], -1).astype(np.int32))
            for i, d in record.datasets.items()
        }
        for old, new in datasets.items():
            self._data_keys.setdefault(new, keys[old])
            known = self.datasets.get(new)
            self.datasets[new] = replace(here[old], id=new) if known is None else _united(known, here[old])
        placed = {i: replace(v, dataset=datasets.get(v.dataset, -1)) for i, v in record.loaders.items()}
        loaders = _matched(self.loaders, placed, lambda v: (v.dataset, v.batch_size, v.sampler, v.length))
        models = _matched(self.models, record.models, model_key)
        optimizers = _matched(self.optimizers, record.optimizers, lambda o: (o.kind, o.num_parameters))
        for i, new in loaders.items():
            self.loaders.setdefault(new, replace(placed[i], id=new))
        for i, new in models.items():
            model = record.models[i]
            known_model = self.models.setdefault(new, replace(model, id=new))
            if model.trained and not known_model.trained:
                self.models[new] = replace(model, id=new)  # what trained it knows what was trained
        for i, new in optimizers.items():
            self.optimizers.setdefault(new, replace(record.optimizers[i], id=new))
        return Numbers(samples, datasets, loaders, models, optimizers)

    def _same_places(self, record: RunRecord, datasets: Mapping[int, int]) -> dict[int, int]:
        """Sample of this part -> known one at the same place of the same data set, where one of the two knows no file of it.

        Only the first process learns which files its data sets open, and a rebuilt program what the run itself had no time for.
        """
        found: dict[int, int] = {}
        for number, data in record.datasets.items():
            same = self.datasets.get(datasets[number])
            if same is None or same.sample is None or data.sample is None or len(same.sample) != len(data.sample):
                continue
            for own, place in zip(data.sample.tolist(), same.sample.tolist(), strict=True):
                if own >= 0 and place >= 0 and (_numbered(record.sample_names[own]) or _numbered(self.names[place])):
                    found[own] = place
        return found

    def _add_names(self, names: tuple[str, ...], given: Mapping[int, int]) -> IntArray:
        """(n,) ids in the merged record, by name where they are not given."""
        ids = []
        for number, name in enumerate(names):
            if number in given:
                ids.append(given[number])
                continue
            if name not in self._places:
                self._places[name] = len(self.names)
                self.names.append(name)
            ids.append(self._places[name])
        return np.array(ids, np.int32)


def _matched(known: Mapping[int, T], given: Mapping[int, T], key: Callable[[T], Hashable]) -> dict[int, int]:
    """The number of each given thing: that of the known one with the same key (the k-th with the k-th), else a new one."""
    places: dict[tuple[Hashable, int], int] = {}
    counted: Counter[Hashable] = Counter()
    for number, thing in known.items():
        places[key(thing), counted[key(thing)]] = number
        counted[key(thing)] += 1
    fresh = max(known, default=-1) + 1
    counted = Counter()
    found = {}
    for number, thing in given.items():
        place = places.get((key(thing), counted[key(thing)]))
        counted[key(thing)] += 1
        if place is None:
            place = number if not known else fresh
            fresh += 1
        found[number] = place
    return found


def _data_key(data: DatasetInfo, names: Sequence[str]) -> Hashable:
    """What is equal for the same data in several processes.

    Files tell by their names which are shared. Without files, both parts of a set (train and test) look alike but for their
    size and targets; so do those whose files only one of the processes has learnt.
    """
    key = (data.kind, data.source, data.root, data.transform_text, data.sample is None)
    if data.sample is None:
        return (*key, data.size)
    if len(data.sample) and (data.learnt or (data.sample[0] >= 0 and _numbered(names[data.sample[0]]))):
        return (*key, data.size, None if data.targets is None else np.asarray(data.targets).tobytes())
    return key


def _numbered(name: str) -> bool:
    return NUMBERED.fullmatch(name) is not None


def model_key(model: ModelInfo) -> Hashable:
    """What two copies of one model have in common: the sizes of their parameters, in order."""
    return tuple(np.asarray(model.numel)[np.asarray(model.is_parameter)].tolist())


def _united(known: DatasetInfo, other: DatasetInfo) -> DatasetInfo:
    """One data set of which two processes each have a share: the samples of both, each once."""
    if known.sample is None or other.sample is None or np.isin(other.sample, known.sample).all():
        return known
    new = ~np.isin(other.sample, known.sample)
    targets: Any = None
    if known.targets is not None and other.targets is not None:
        targets = np.concatenate([known.targets, other.targets[new]])
    sample = np.concatenate([known.sample, other.sample[new]])
    return replace(known, size=len(sample), sample=sample, targets=targets)
