"""Where samples come from, learnt by watching data sets read: the file of each item, a member of an archive, or memory.

Attributes that look like paths are the fast way. They count when a few items, read whole, open just these files. Where there are
none, every item is asked for, and its reading is ended as soon as it opens its file: nothing is decoded.
"""

from __future__ import annotations

import functools
import operator
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset

from valgap.seams.looking import datasets as ds
from valgap.seams.looking.batches import find_images
from valgap.seams.looking.content import content_keys
from valgap.seams.looking.opened import OpenedFiles
from valgap.seams.looking.samples import Samples, path_name

PROBES = 4  # items of each innermost data set that are read whole
MAX_LEAVES = 8
MAX_STREAMED = 4_096


@dataclass
class Provenance:
    """How the samples of one data set are named; the fields of the record's event."""

    dataset: int
    how: str = "unknown"
    checked: int = 0
    agreed: int = 0
    named: float = 0.0
    note: str = ""


def learn(samples: Samples, dataset: Any, dataset_id: int, collate: Callable[[Any], Any] | None, deadline: float) -> Provenance:
    """Find the files of a data set's samples; names that were wrong or missing are put right in ``samples``."""
    found = Provenance(dataset_id)
    readers = [*ds.chain(dataset), *(leaf.dataset for leaf in ds.leaves(dataset)[:MAX_LEAVES])]
    with OpenedFiles(readers) as opened:
        if isinstance(dataset, IterableDataset) or samples.ids.get(dataset_id) is None:
            _stream(samples, dataset, found, opened, collate, deadline)
        else:
            _numbered(samples, dataset, found, opened, deadline)
    return found


# -- data sets whose items have a number --------------------------------------------------------


def _numbered(samples: Samples, dataset: Any, found: Provenance, opened: OpenedFiles, deadline: float) -> None:
    ids = samples.ids[found.dataset]
    new: dict[int, str] = {}  # position -> name
    kinds: list[tuple[str, int]] = []
    parts = ds.leaves(dataset)
    for leaf in parts[:MAX_LEAVES]:
        if len(leaf.position):
            how, names = _leaf(dataset, leaf, found, opened, deadline)
            new |= names
            kinds.append((how, len(leaf.position)))
    hows = {how for how, _ in kinds}
    found.how = next(iter(hows)) if len(hows) == 1 else "mixed" if hows else "unknown"
    if new:
        samples.rename(found.dataset, np.array(sorted(new)), [new[i] for i in sorted(new)])
    known = sum(n for how, n in kinds if how == "declared") + len(new)
    found.named = round(known / max(1, len(ids)), 4)


def _leaf(dataset: Any, leaf: ds.Leaf, found: Provenance, opened: OpenedFiles, deadline: float) -> tuple[str, dict[int, str]]:
    """(how its samples are named, position -> name for those whose name was not known)."""
    declared = ds.paths_of(leaf.dataset)
    places = np.unique(np.linspace(0, len(leaf.position) - 1, PROBES).astype(int)).tolist()
    read: dict[int, list[str]] = {}
    again: list[str] = []
    for place in places:
        try:
            read[place] = opened.of(functools.partial(operator.getitem, dataset, int(leaf.position[place])))
            if declared is None and read[place] and not again:
                again = opened.of(functools.partial(operator.getitem, dataset, int(leaf.position[place])))
        except Exception as error:
            found.note = f"reading an item raised {type(error).__name__}"
            return ("declared", {}) if declared is not None else ("unknown", {})
        if time.perf_counter() > deadline or (len(read) == 2 and not any(read.values())):
            break
    column = _column(list(read.values()), again)
    found.checked += len(read)
    if column is None:
        if not any(read.values()):
            if declared is None:
                return "memory", {}
            found.note = "items are read without opening the files that the data set lists"
            return "declared", {}
        if declared is None or len(read) > 1:
            found.note = "what an item opens does not tell it from others"
            return ("archive", {}) if _is_one_file(read.values()) else ("unknown", {})
        column = 0
    files = {place: names[column] for place, names in read.items()}
    if declared is not None:
        agree = [_same(declared[int(leaf.index[place])], leaf.dataset, file) for place, file in files.items()]
        found.agreed += sum(agree)
        if all(agree):
            return "declared", {}
        found.note = "the paths that the data set lists are not the files that it reads"
    how = "archive" if all("!" in f for f in files.values()) else "watched"
    names = _by_pattern(leaf, files, dataset, opened, column) or _by_looking(leaf, dataset, opened, column, deadline)
    names |= {int(leaf.position[place]): file for place, file in files.items()}
    if len(names) < len(leaf.position):
        found.note = f"{len(names)} of {len(leaf.position)} items could be looked at in the time that there was"
    return how, {position: path_name(name) for position, name in names.items()}


def _column(read: list[list[str]], again: list[str]) -> int | None:
    """Which of the opened files is the item's own: it differs from item to item, and is the same when an item is read twice."""
    if not read:
        return None
    width = min(len(names) for names in read)
    if len(read) == 1:
        return None
    # A second reading that opens less has kept what it read.
    same = [k >= len(again) or again[k] == read[0][k] for k in range(width)]
    own = [k for k in range(width) if same[k] and len({names[k] for names in read}) == len(read)]
    pictures = [k for k in own if read[0][k].lower().endswith(ds.IMAGE_SUFFIXES)]
    return next(iter([*pictures, *own]), None)


def _is_one_file(read: Any) -> bool:
    names = [tuple(n) for n in read]
    return len(set(names)) == 1 and bool(names[0])


def _same(declared: str, leaf: Any, file: str) -> bool:
    root = ds.root_of(leaf)
    options = [declared, os.path.join(root, declared)] if root is not None else [declared]  # noqa: PTH118
    return any(os.path.abspath(option) == os.path.abspath(file) for option in options)  # noqa: PTH100


def _by_pattern(leaf: ds.Leaf, files: dict[int, str], dataset: Any, opened: OpenedFiles, column: int) -> dict[int, str]:
    """Names by a column of the data set to which the same is always put before and behind; checked on further items."""
    for values in ds.columns(leaf.dataset):
        pattern = {_around(str(values[int(leaf.index[place])]), file) for place, file in files.items()}
        if len(pattern) != 1 or None in pattern or len(files) < 2:
            continue
        before, behind = next(iter(pattern))  # type: ignore[misc]
        names = {int(p): f"{before}{values[int(i)]}{behind}" for p, i in zip(leaf.position, leaf.index, strict=True)}
        others = np.random.default_rng(0).choice(leaf.position, min(PROBES, len(leaf.position)), replace=False).tolist()
        looked = [opened.first_of(functools.partial(operator.getitem, dataset, p), column + 1) for p in others]
        if all(found is not None and found[column] == names[p] for p, found in zip(others, looked, strict=True)):
            return names
    return {}


def _around(value: str, file: str) -> tuple[str, str] | None:
    place = file.rfind(value) if value else -1
    return (file[:place], file[place + len(value) :]) if place >= 0 else None


def _by_looking(leaf: ds.Leaf, dataset: Any, opened: OpenedFiles, column: int, deadline: float) -> dict[int, str]:
    names: dict[int, str] = {}
    for position in leaf.position.tolist():
        if time.perf_counter() > deadline:
            break
        looked = opened.first_of(functools.partial(operator.getitem, dataset, position), column + 1)
        if looked is not None:
            names[position] = looked[column]
    return names


# -- streams ------------------------------------------------------------------------------------


def _stream(
    samples: Samples, dataset: Any, found: Provenance, opened: OpenedFiles, collate: Callable[[Any], Any] | None, deadline: float
) -> None:
    """Samples of a stream are known by their content; the file of each is the one that is opened for it, where it is just one."""
    found.how = "content"
    if not isinstance(dataset, IterableDataset):
        found.how, found.note = "unknown", "it has no length, and is no stream"
        return
    ids: list[int] = []
    names: list[str] = []
    for item in _items(dataset, opened, deadline):
        images = find_images(collate([item]) if collate is not None else item)
        if images is None:
            break
        own = [n for n in opened.names if n.lower().endswith(ds.IMAGE_SUFFIXES)]
        found.checked += 1
        if len(own) != len(images):
            found.note = "files are read ahead of the items, or several at once"
            return
        known = [samples.id_of_content(k) for k in content_keys(images).tolist()]
        ids += [i for i in known if i >= 0]
        names += [path_name(n) for n, i in zip(own, known, strict=True) if i >= 0]
    found.agreed = len(ids)
    if not ids:
        found.note = found.note or "what is read again is not what was seen"
        return
    found.how = "archive" if all("!" in n for n in names) else "watched"
    samples.rename_ids(found.dataset, ids, names)
    found.named = round(len(set(ids)) / max(1, found.checked), 4)


def _items(dataset: Any, opened: OpenedFiles, deadline: float) -> Iterator[Any]:
    items = iter(dataset)
    for _ in range(MAX_STREAMED):
        if time.perf_counter() > deadline:
            return
        opened.names = []
        try:
            item = next(items)
        except Exception:  # StopIteration, or what a stranger's stream raises
            return
        yield item
