"""Folders of images as an ImageTable: train/ and val/, or one folder that is split."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from valgap.data.images import SUFFIXES, oddities, read_rgb
from valgap.errors import DataError

VALIDATION_NAMES = ("val", "valid", "validation", "test")
VAL_SHARE = 0.2
MIN_CLASSES = 2
HASH_SIDE = 8
READ_SIDE = 64
# Bits of a 64-bit difference hash in which two views of one photograph may differ, and the mean difference of their
# thumbnails (of 255) that confirms it. Measured on clothing_mini and hymenoptera_256: copies at half the size and JPEG
# quality 60 differ by 4 bits and 1.2 at most; of different photographs within 10 bits the nearest differ by 12.7.
HASH_DISTANCE = 10
THUMB_DIFFERENCE = 4.0


@dataclass
class ReadReport:
    """What was met while reading: files left out, with the reason, and odd but readable ones, by kind."""

    unreadable: dict[str, str] = field(default_factory=dict)
    odd: dict[str, list[str]] = field(default_factory=dict)
    train_only: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The report in words, a line each; empty when there is nothing to say."""
        out = [f"{len(self.unreadable)} unreadable files left out:"] if self.unreadable else []
        out += [f"  {path}: {why}" for path, why in self.unreadable.items()]
        out += [f"{len(paths)} {kind} files, converted: {', '.join(paths[:3])}" for kind, paths in self.odd.items()]
        if self.train_only:
            out.append(f"classes without validation images: {', '.join(self.train_only)}")
        return out


@dataclass(frozen=True)
class ImageTable:
    """Images with labels and split. ``labels`` index ``classes``, which come from train alone."""

    root: Path
    paths: tuple[Path, ...]
    labels: npt.NDArray[np.int64]  # (N,)
    is_val: npt.NDArray[np.bool_]  # (N,)
    classes: tuple[str, ...]
    report: ReadReport

    def part(self, val: bool) -> tuple[list[Path], npt.NDArray[np.int64]]:
        """(paths, labels) of one split, in order."""
        places = np.flatnonzero(self.is_val == val)
        return [self.paths[i] for i in places], self.labels[places]


def load_folder(root: Path, seed: int = 0, progress: Callable[[Sequence[Path]], Iterator[Path]] | None = None) -> ImageTable:
    """The images below ``root``; unreadable ones are listed in the report and left out.

    ``root`` holds train/ and val/ (or valid/, validation/, test/), each with one folder per class, or class folders
    alone, which are split: stratified, seeded, near duplicates kept on one side. ``progress`` wraps the walk over files.

    Raises:
        DataError: no such folder, no images, fewer than two classes, or a val class that train does not have.
    """
    if not root.is_dir():
        raise DataError(f"{root} is no folder: give a folder with train/ and val/, or with one folder per class")
    train_folder = root / "train"
    val_folder = next((root / name for name in VALIDATION_NAMES if (root / name).is_dir()), None)
    report = ReadReport()
    if train_folder.is_dir():
        if val_folder is None:
            raise DataError(f"{root} has train/ but none of {', '.join(n + '/' for n in VALIDATION_NAMES)}: add one")
        train, val = _class_files(train_folder), _class_files(val_folder)
    else:
        train, val = _class_files(root), None
    progress = progress or iter
    train = _readable(train, report, progress)
    classes = tuple(sorted(name for name, files in train.items() if files))
    _require(train_folder if val is not None else root, classes, train)
    if val is None:
        return _split(root, classes, train, report, seed)
    assert val_folder is not None
    val = _readable(val, report, progress)
    if not any(val.values()):
        raise DataError(f"{val_folder} holds no readable image: put images into {val_folder}/CLASS/")
    foreign = sorted(name for name, files in val.items() if files and name not in classes)
    if foreign:
        raise DataError(
            f"{val_folder} has classes that train does not have: {', '.join(foreign)}; train has {', '.join(classes)}"
        )
    report.train_only = tuple(name for name in classes if not val.get(name))
    rows = [(p, classes.index(n), False) for n in classes for p in train[n]]
    rows += [(p, classes.index(n), True) for n in classes for p in val.get(n, [])]
    return _table(root, rows, classes, report)


def load_test(folder: Path, table: ImageTable) -> tuple[list[Path], npt.NDArray[np.int64]]:
    """(paths, labels) of a folder of class folders, by train's class map. Raises DataError for a class unknown to train."""
    found = class_images(folder)
    foreign = sorted(name for name, files in found.items() if files and name not in table.classes)
    if foreign or not any(found.values()):
        raise DataError(
            f"{folder} has classes that train does not have: {', '.join(foreign)}" if foreign else f"{folder} holds no images"
        )
    rows = [(p, table.classes.index(name)) for name, files in found.items() for p in files]
    return [p for p, _ in rows], np.array([y for _, y in rows], np.int64)


def _table(root: Path, rows: list[tuple[Path, int, bool]], classes: tuple[str, ...], report: ReadReport) -> ImageTable:
    return ImageTable(
        root=root,
        paths=tuple(r[0] for r in rows),
        labels=np.array([r[1] for r in rows], np.int64),
        is_val=np.array([r[2] for r in rows], bool),
        classes=classes,
        report=report,
    )


def class_images(folder: Path) -> dict[str, list[Path]]:
    """The readable images below a folder of class folders, by class. Raises DataError where it is no folder."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: expected {folder}/CLASS/image.jpg")
    return _readable(_class_files(folder), ReadReport(), iter)


def _class_files(folder: Path) -> dict[str, list[Path]]:
    """Image files by class: the first folder level names the class, images may lie at any depth below."""
    found: dict[str, list[Path]] = {}
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.name.startswith("."):
            files = (p for p in entry.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            found[entry.name] = sorted(files)
    return found


def _readable(
    files: dict[str, list[Path]], report: ReadReport, progress: Callable[[Sequence[Path]], Iterator[Path]]
) -> dict[str, list[Path]]:
    kept: dict[str, list[Path]] = {name: [] for name in files}
    owner = {path: name for name, paths in files.items() for path in paths}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, found in zip(progress(list(owner)), pool.map(_looked_at, owner), strict=True):
            if isinstance(found, DataError):
                report.unreadable[str(path)] = str(found).removeprefix(f"{path} is ")
                continue
            for kind in found:
                report.odd.setdefault(kind, []).append(str(path))
            kept[owner[path]].append(path)
    return kept


def _looked_at(path: Path) -> list[str] | DataError:
    """What is odd about a file, or why it cannot be read. A JPEG is read to its end, but at reduced scale."""
    try:
        read_rgb(path, min_side=READ_SIDE)
    except DataError as error:
        return error
    return oddities(path)


def _require(folder: Path, classes: tuple[str, ...], files: dict[str, list[Path]]) -> None:
    if not files:
        loose = any(p.suffix.lower() in SUFFIXES for p in folder.iterdir())
        hint = "its images lie in no class folder" if loose else "it is empty"
        raise DataError(f"{folder} has no class folders ({hint}): expected {folder}/CLASS/image.jpg")
    if not classes:
        raise DataError(f"{folder} holds no readable image: expected {folder}/CLASS/image.jpg")
    if len(classes) < MIN_CLASSES:
        raise DataError(f"{folder} has one class only ({classes[0]}): a classifier needs two class folders or more")


# -- splitting --------------------------------------------------------------------------------


def _split(root: Path, classes: tuple[str, ...], files: dict[str, list[Path]], report: ReadReport, seed: int) -> ImageTable:
    rng = np.random.default_rng(seed)
    rows: list[tuple[Path, int, bool]] = []
    for label, name in enumerate(classes):
        groups = near_duplicate_groups(files[name])
        if len(groups) < 2:
            raise DataError(f"class {name} in {root} has too few different images to split: add images, or a val/ folder")
        wanted = max(1, round(VAL_SHARE * len(files[name])))
        taken = 0
        for number in rng.permutation(len(groups)):
            val = taken < wanted and (taken + len(groups[number]) <= wanted * 1.5 or taken == 0)
            taken += len(groups[number]) if val else 0
            rows += [(path, label, val) for path in groups[number]]
    rows.sort(key=lambda row: (row[2], row[1], str(row[0])))
    return _table(root, rows, classes, report)


def near_duplicate_groups(paths: Sequence[Path]) -> list[list[Path]]:
    """The paths in groups: same bytes, or nearly the same picture (difference hash, confirmed on thumbnails)."""
    prints = [_print(path) for path in paths]
    parent = list(range(len(paths)))

    def find(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    bits = np.array([p[1] for p in prints], np.uint8).reshape(len(paths), -1)
    for i in range(len(paths)):
        distance = (bits[i + 1 :] != bits[i]).sum(axis=1)
        for j in (np.flatnonzero(distance <= HASH_DISTANCE) + i + 1).tolist():
            same = prints[i][0] == prints[j][0]
            if same or float(np.abs(prints[i][2] - prints[j][2]).mean()) < THUMB_DIFFERENCE:
                parent[find(j)] = find(i)
    groups: dict[int, list[Path]] = {}
    for i, path in enumerate(paths):
        groups.setdefault(find(i), []).append(path)
    return list(groups.values())


def _print(path: Path) -> tuple[bytes, npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """(digest of the bytes, difference hash (8, 8), grey thumbnail (16, 16))."""
    grey = read_rgb(path).convert("L")
    small = np.asarray(grey.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX), np.float64)
    thumb = np.asarray(grey.resize((16, 16), Image.Resampling.BOX), np.float64)
    return hashlib.blake2b(path.read_bytes(), digest_size=16).digest(), small[:, 1:] > small[:, :-1], thumb
