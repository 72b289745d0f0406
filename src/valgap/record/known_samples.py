"""What became known of samples after they were recorded: other names, and the names of their classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import numpy as np

from valgap.types import DatasetInfo, IntArray, Pass, RunRecord

# A folder names a class where it holds this many images on average; fewer are folders of single shots.
MIN_IMAGES = 3


def renamed_samples(events: Iterable[Mapping[str, Any]]) -> dict[int, dict[int, int]]:
    """Data set -> old sample id -> new one, of the record's ``renamed`` events."""
    found: dict[int, dict[int, int]] = {}
    for event in events:
        pairs = zip(np.asarray(event["old"]).tolist(), np.asarray(event["new"]).tolist(), strict=True)
        found.setdefault(int(event["dataset"]), {}).update(pairs)
    return found


def with_new_ids(ids: IntArray, new: Mapping[int, int]) -> IntArray:
    """(N,) sample ids, those that were renamed exchanged."""
    if not new:
        return ids
    return np.array([new.get(i, i) for i in ids.tolist()], ids.dtype)


def with_class_folders(
    datasets: Mapping[int, DatasetInfo], passes: Sequence[Pass], names: Sequence[str]
) -> dict[int, DatasetInfo]:
    """The data sets; those that name no class are given the names of the folders, where each folder holds just one class."""
    found: dict[int, dict[str, int]] = {}
    for number, info in datasets.items():
        own = [p for p in passes if p.dataset == number and p.phase in ("train", "validation")]
        if info.class_to_idx is None and own:
            folders = _folders(own, names)
            if folders:
                found[number] = folders
    # A folder is a class only where training and validation agree that it is: folders of persons or of days never do.
    maps = [*found.values(), *(dict(d.class_to_idx) for d in datasets.values() if d.class_to_idx)]
    kept = {n: m for n, m in found.items() if all(2 * len(set(m) & set(o)) > min(len(m), len(o)) for o in maps)}
    return {n: replace(d, class_to_idx=kept[n]) if n in kept else d for n, d in datasets.items()}


def _folders(passes: Sequence[Pass], names: Sequence[str]) -> dict[str, int] | None:
    classes: dict[str, set[int]] = {}
    samples: set[int] = set()
    for one in passes:
        for sample, target in zip(one.samples.sample.tolist(), one.samples.target.tolist(), strict=True):
            if sample < 0 or target < 0:
                continue
            name = PurePath(names[sample])
            if name.suffix == "" or not name.parent.name:
                return None
            samples.add(sample)
            classes.setdefault(name.parent.name, set()).add(target)
    if len(classes) < 2 or len(samples) < MIN_IMAGES * len(classes) or any(len(c) > 1 for c in classes.values()):
        return None
    folders = {folder: next(iter(c)) for folder, c in classes.items()}
    return folders if len(set(folders.values())) == len(folders) else None


def with_seen_labels(run: RunRecord) -> RunRecord:
    """The record; a training set that declares no targets has those under which it was scored again.

    That walked over all of it, or over a random part: what was never drawn in training is known from there alone.
    """
    train, val, closing = run.last_train, run.last_validation, run.closing
    table = closing.rescores.get("train_eval") if closing is not None else None
    info = run.datasets.get(train.dataset) if train is not None else None
    if train is None or table is None or info is None or info.targets is not None or info.sample is None:
        return run
    if val is not None and val.dataset == train.dataset:
        return run  # which of its samples are training's is not declared
    if run.mixes(train):
        return run  # a loader that mixes did so then as well
    known = dict(zip(table.sample.tolist(), table.target.tolist(), strict=True))
    targets = np.array([known.get(s, -1) if s >= 0 else -1 for s in info.sample.tolist()], np.int32)
    if not (targets >= 0).any():
        return run
    return replace(run, datasets={**run.datasets, info.id: replace(info, targets=targets)})
