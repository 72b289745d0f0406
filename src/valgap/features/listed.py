"""Files of samples that a program holds in memory: found where it opened them, or a folder lists them, in the same order.

Programs read a folder class by class, in the order of names, into arrays. Where as many images were opened in a row as the data
set holds, or a folder that was given or read holds as many, and their class folders in that order are the data set's targets one
by one, the n-th sample is the n-th file. Where they are others, they may be what is wrong: then the images that the model was
given tell by their looks whether it is.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from valgap.data.images import SUFFIXES
from valgap.features.looks import AGREE, FEW_CLEAR, FRAMES, likest, pictures_of
from valgap.types import IntArray, RunRecord

MAX_FILES = 200_000
MOST_PICTURES = 4_000  # files that are looked at
MAX_DEPTH = 3
MIN_CLASSES = 2
MOST_ROWS = 50  # places that a row of opened files may begin at
FIRST_ENTRIES = 20  # of a folder, that show whether it holds images


def listed_files(run: RunRecord, dataset: int) -> tuple[list[str], IntArray] | None:
    """(files, sample ids), one of each for every sample of a data set; None where no folder lists them so."""
    targets = _targets(run, dataset)
    if targets is None:
        return None
    ids, order = targets
    rows = (*opened_in_a_row(run, len(order)), *map(images_in_order, image_folders(run)))
    as_many = [files for files in rows if len(files) == len(order)]
    fitting = [files for files in as_many if _in_classes(files, order)]
    few = len(order) <= MOST_PICTURES
    if len({tuple(files) for files in fitting}) > 1 and few:
        # Classes of as many images each: their looks tell which ones the program took.
        return next((files for files in fitting if _looks_so(run, dataset, ids, files)), fitting[0]), ids
    if fitting:
        return fitting[0], ids
    likely = next((files for files in as_many if few and _looks_so(run, dataset, ids, files)), None)
    return (likely, ids) if likely is not None else None


def _in_classes(files: list[str], order: IntArray) -> bool:
    """Whether the files' folders part them as the targets (N,) do."""
    parents = [os.path.dirname(f) for f in files]  # noqa: PTH120
    known = {p: i for i, p in enumerate(dict.fromkeys(parents))}
    return len(known) >= MIN_CLASSES and _same_parts(np.array([known[p] for p in parents]), order)


def _looks_so(run: RunRecord, dataset: int, ids: IntArray, files: list[str]) -> bool:
    """Whether the images that the model was given are, by their looks, the files at their places."""
    place = {int(s): i for i, s in enumerate(ids.tolist())}
    own = [k for k in run.kept if run.passes[k.pass_index].dataset == dataset]
    if not own:
        return False
    places = np.array([place.get(int(s), -1) for k in own for s in k.sample])
    for whole in FRAMES:
        pictures = pictures_of(files, whole)
        told = np.concatenate([likest(k, pictures) for k in own])
        clear = (told >= 0) & (places >= 0)
        if clear.sum() >= FEW_CLEAR and (told == places)[clear].mean() >= AGREE:
            return True
    return False


def _targets(run: RunRecord, dataset: int) -> tuple[IntArray, IntArray] | None:
    """(sample ids, targets) of a data set in its own order; None where either is not known of all of them."""
    info = run.datasets.get(dataset)
    if info is None or info.sample is None or info.size <= 0 or len(info.sample) != info.size:
        return None
    seen: dict[int, int] = {}
    for one in run.passes:
        if one.dataset == dataset:
            pairs = zip(one.samples.sample.tolist(), one.samples.target.tolist(), strict=True)
            seen.update((sample, target) for sample, target in pairs if target >= 0)
    declared = info.targets.tolist() if info.targets is not None and len(info.targets) == info.size else [-1] * info.size
    found = np.array([seen.get(int(s), t) for s, t in zip(info.sample.tolist(), declared, strict=True)])
    return (np.asarray(info.sample), found) if (found >= 0).all() else None


def _same_parts(a: IntArray, b: IntArray) -> bool:
    """Whether two sequences are equal but for the names of their values."""
    pairs = set(zip(a.tolist(), b.tolist(), strict=True))
    return len(pairs) == len(set(a.tolist())) == len(set(b.tolist()))


def opened_files(run: RunRecord) -> list[str]:
    """The image files that the program opened, in the order of their opening."""
    return _strings(run, "opened")


def opened_in_a_row(run: RunRecord, count: int) -> Iterator[list[str]]:
    """So many image files as the program opened them one after another, from each place where a folder of classes begins."""
    files = opened_files(run)
    roots = [os.path.dirname(os.path.dirname(f)) for f in files]  # noqa: PTH120
    begins = [i for i in range(len(files)) if i == 0 or roots[i] != roots[i - 1]]
    folders = [os.path.dirname(f) for f in files]  # noqa: PTH120
    classes = [i for i in range(1, len(files)) if folders[i] != folders[i - 1]]  # a program may take some classes only
    for first in dict.fromkeys([*begins[:MOST_ROWS], len(files) - count, *classes[:MOST_ROWS]]):
        if 0 <= first <= len(files) - count and count > 0:
            yield files[first : first + count]


def _strings(run: RunRecord, key: str) -> list[str]:
    """The strings that the record's head holds under this key."""
    found = run.header.get(key)
    return [w for w in found if isinstance(w, str)] if isinstance(found, (list, tuple)) else []


def image_folders(run: RunRecord) -> Iterator[Path]:
    """Folders that the program's arguments name, and those in them, down to a few levels; those that it read images from."""
    yield from dict.fromkeys((*_given_folders(run), *_read_folders(run)))


def _read_folders(run: RunRecord) -> Iterator[Path]:
    """Folders with images that the program opened or listed, and those in which several of them lie: folders of classes."""
    opened = [os.path.dirname(f) for f in opened_files(run)]  # noqa: PTH120
    folders = [f for f in map(Path, dict.fromkeys((*opened, *_strings(run, "listed")))) if _holds_images(f)]
    within = Counter(f.parent for f in folders)
    yield from folders
    yield from (folder for folder, count in within.items() if count >= MIN_CLASSES)


def _holds_images(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(e.name.lower().endswith(SUFFIXES) for e in itertools.islice(entries, FIRST_ENTRIES))
    except OSError:
        return False


def _given_folders(run: RunRecord) -> Iterator[Path]:
    base = Path(str(run.header.get("cwd", ".")))
    given = [w.rpartition("=")[2] for w in _strings(run, "argv")]
    roots = [p for p in (base / w for w in given if w) if p.is_dir()]
    for root in roots:
        level = [root]
        for _ in range(MAX_DEPTH):
            yield from level
            level = [Path(e.path) for folder in level for e in sorted(os.scandir(folder), key=lambda e: e.name) if e.is_dir()]


def images_in_order(folder: Path) -> list[str]:
    """Image files below a folder, folder by folder in the order of names; none of one that holds very many of whatever kind."""
    found: list[str] = []
    seen = 0
    for path, folders, files in os.walk(folder):
        folders.sort()
        found += [os.path.join(path, f) for f in sorted(files) if f.lower().endswith(SUFFIXES)]  # noqa: PTH118
        seen += len(folders) + len(files)
        if seen > MAX_FILES:
            return []
    return found
