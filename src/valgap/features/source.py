"""Which images a Case is about: those of a recorded run, of a folder, or of a list in a CSV file."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from valgap.data import images_of_training
from valgap.data.contents import is_address
from valgap.data.folder import VALIDATION_NAMES
from valgap.data.images import SUFFIXES
from valgap.errors import DataError
from valgap.features.archives import CONTAINERS, PACKED, holds_containers, rows_of_archive
from valgap.features.listed import listed_files
from valgap.types import ImageRows, Pass, RunRecord

# (name, path, label name or None, whether validation)
Row = tuple[str, str, str | None, bool]
HERE = Path()
SPLIT_WORDS = {"train": False, "training": False, **dict.fromkeys((*VALIDATION_NAMES, "dev", "eval"), True)}
COLUMNS = {
    "path": ("path", "file", "filename", "file_name", "image", "image_path", "filepath"),
    "label": ("label", "class", "target", "category", "class_name"),
    "split": ("split", "set", "subset", "partition", "fold"),
}


def rows_of_run(run: RunRecord) -> ImageRows | None:
    """The images that the last training and validation passes were given; None where no file of them is there.

    `valgap train` may learn from stored features: its record then names no training image, and its folder counts.
    """
    own = images_of_training(run)
    if own:
        return _rows(own, sorted({r[2] for r in own if r[2] is not None}), 0)
    train, val = run.last_train, run.last_validation
    if train is None:
        return None
    names = class_names(run, train)
    if val is not None:  # a class that training never saw is a class
        names |= {i: name for i, name in class_names(run, val).items() if i not in names}
    base = Path(str(run.header.get("cwd", ".")))
    found: list[Row] = []
    absent = 0
    for one, is_val in ((train, False), (val, True)):
        samples = _samples(run, one) if one is not None else {}
        for name, label in samples.items():
            path = base / name
            if path.is_file():
                found.append((name, str(path), names.get(label, str(label)) if label >= 0 else None, is_val))
            else:
                absent += 1
        if one is not None and not samples:
            found += [(n, p, names.get(t, str(t)), is_val) for n, p, t in _in_memory(run, one)]
    return _rows(found, list(names.values()), absent) if found else None


def some_rows(run: RunRecord, rows: ImageRows, at_most: int) -> ImageRows:
    """``at_most`` of the rows, as many of each side: those that the model was shown and that were kept, those drawn, then others.

    Of each of these, evenly spread over the classes.
    """
    kept = {run.sample_names[s] for k in run.kept for s in k.sample.tolist() if s >= 0}
    drawn = {run.sample_names[s] for s in _drawn(run.passes)}
    rank = np.array([2 - (n in kept) - (n in drawn) for n in rows.names])
    chosen: list[int] = []
    for is_val in (True, False):
        room = (at_most - len(chosen)) if not is_val else min(at_most // 2, int(rows.is_val.sum()))
        places = rows.part(is_val)
        turn = np.zeros(len(places), np.int64)  # which of its class and rank a row is
        counts: dict[tuple[int, int], int] = {}
        for i, place in enumerate(places.tolist()):
            key = (int(rank[place]), int(rows.labels[place]))
            turn[i] = counts[key] = counts.get(key, -1) + 1
        order = np.lexsort((turn, rank[places]))
        chosen += places[order[:room]].tolist()
    keep = np.array(sorted(chosen), np.int64)
    names, paths = (tuple(values[i] for i in keep.tolist()) for values in (rows.names, rows.paths))
    return replace(rows, names=names, paths=paths, labels=rows.labels[keep], is_val=rows.is_val[keep])


def rows_of_declared(run: RunRecord, train: Pass, at_most: int) -> ImageRows | None:
    """All training images that a data set declares, drawn or not, and those of the last validation; None without such files.

    Of more than ``at_most`` of a side, as many of each class are taken, evenly spread.
    """
    dataset, val = run.datasets.get(train.dataset), run.last_validation
    if dataset is None or dataset.sample is None or dataset.targets is None or val is None:
        return None
    names = class_names(run, train)
    others = _drawn(p for p in run.passes if p.phase == "validation")
    declared = zip(dataset.sample.tolist(), np.asarray(dataset.targets).tolist(), strict=False)
    sides = [
        [(run.sample_names[s], int(t)) for s, t in declared if s >= 0 and t >= 0 and s not in others],
        list(_samples(run, val).items()),
    ]
    base = Path(str(run.header.get("cwd", ".")))
    found: list[Row] = []
    for side, is_val in zip(sides, (False, True), strict=True):
        chosen = sorted(side, key=lambda r: r[1])[:: max(1, -(-len(side) // at_most))]
        found += [(n, str(base / n), names.get(t, str(t)), is_val) for n, t in chosen if t >= 0 and (base / n).is_file()]
    return _rows(found, list(names.values()), 0) if found else None


def class_names(run: RunRecord, one: Pass) -> dict[int, str]:
    """Class index -> name by the pass's data set; indices without a name are their own."""
    dataset = run.datasets.get(one.dataset)
    names = {i: n for n, i in dataset.class_to_idx.items()} if dataset is not None and dataset.class_to_idx else {}
    seen = np.unique(one.samples.target[one.samples.target >= 0]).tolist()
    return {i: names.get(i, str(i)) for i in sorted({*seen, *names})}


def _samples(run: RunRecord, one: Pass) -> dict[str, int]:
    """Sample name -> target of the samples that a phase uses of a pass's data set, those that look like image files.

    Two samplers may share the files of one folder: only what is drawn belongs to the phase. Where the pass was cut short,
    what it did not come to belongs to it too, unless the other phase alone draws it.
    """
    table, dataset = one.samples, run.datasets.get(one.dataset)
    mixed = run.mixes(one)
    known = {int(s): -1 if mixed else int(t) for s, t in zip(table.sample, table.target, strict=True) if s >= 0}
    if dataset is not None and dataset.sample is not None and dataset.targets is not None:
        declared = zip(dataset.sample.tolist(), dataset.targets.tolist(), strict=True)
        said = {int(s): int(t) for s, t in declared if s >= 0}
        known = {**known, **said} if mixed else {**said, **known}
    drawn = _drawn(p for p in run.of_phase(one.phase) if p.dataset == one.dataset)
    if one.complete and (table.sample >= 0).all():
        known = {s: t for s, t in known.items() if s in drawn}
    else:
        others = _drawn(p for p in run.passes if p.phase in ("train", "validation") and p.phase != one.phase) - drawn
        known = {s: t for s, t in known.items() if s not in others}
    named = {run.sample_names[s]: t for s, t in sorted(known.items())}
    return {n: t for n, t in named.items() if n.lower().endswith(SUFFIXES)}


def _in_memory(run: RunRecord, one: Pass) -> list[tuple[str, str, int]]:
    """(sample name, file, target) of the samples of a pass that the program holds in memory, where their files are known."""
    if one.phase == "train" and one.loader < 0 and (run.unlisted or one.dataset < 0):
        return [(path, path, label) for path, label in run.unlisted]
    listed = listed_files(run, one.dataset)
    if listed is None:
        return []
    files = dict(zip(listed[1].tolist(), listed[0], strict=True))
    tables = [p.samples for p in run.of_phase(one.phase) if p.dataset == one.dataset]
    drawn = {s: t for table in tables for s, t in zip(table.sample.tolist(), table.target.tolist(), strict=True)}
    return [(run.sample_names[s], files[s], t) for s, t in sorted(drawn.items()) if s in files and t >= 0]


def _drawn(passes: Iterable[Pass]) -> set[int]:
    return {s for p in passes for s in p.samples.sample.tolist() if s >= 0}


def rows_of_path(data: str | os.PathLike[str]) -> ImageRows:
    """The images of a folder with train/ and val/, of one folder of class folders, of a CSV file, of a zip file, of WebDataset
    shards or Parquet files (or a folder of these), or of any of it at an address that fsspec knows.

    Raises:
        DataError: no such path, it cannot be read, or no image is in it.
    """
    text = os.fspath(data)
    found: list[Row]
    if is_address(text) or (Path(text).is_file() and text.lower().endswith((*CONTAINERS, *PACKED))):
        found = rows_of_archive(text)
    elif Path(text).is_file():
        found = _listed(Path(text))
    elif Path(text).is_dir():
        found = list(_in_folder(Path(text)))
        if not found and holds_containers(Path(text)):
            found = rows_of_archive(text)
    else:
        raise DataError(f"{data} is neither a folder nor a CSV file: give a folder with train/ and val/, or a list of images")
    if not found:
        raise DataError(f"{data} holds no image: expected {data}/CLASS/image.jpg, or train/ and val/ with class folders")
    return _rows(found, sorted({r[2] for r in found if r[2] is not None}), 0)


def _in_folder(root: Path) -> Iterable[Row]:
    train = next((root / n for n in ("train", "training") if (root / n).is_dir()), None)
    val = next((root / n for n in VALIDATION_NAMES if (root / n).is_dir()), None)
    if train is None and val is None:
        yield from _classes(root, root, False)
    if train is not None:
        yield from _classes(root, train, False)
    if val is not None:
        yield from _classes(root, val, True)


def _classes(root: Path, folder: Path, is_val: bool) -> Iterable[Row]:
    """The images below a split's folder; the first folder level names the class, loose images have none."""
    start, above = (len(f"{place}{os.sep}") if place != HERE else 0 for place in (folder, root))
    for found in files_below(str(folder)):
        path = found.removeprefix(f".{os.sep}")  # as Path names it
        first, inside, _ = path[start:].partition(os.sep)
        yield path[above:], path, first if inside else None, is_val


def files_below(folder: str) -> Iterator[str]:
    """Image files below a folder, in the order of their names folder by folder; hidden ones are left out. Plain text, no Path:
    a million of these takes a gigabyte.
    """
    try:
        with os.scandir(folder) as entries:
            found = sorted((e.name, e.is_dir(follow_symlinks=False), e) for e in entries if not e.name.startswith("."))
    except OSError:
        return
    for name, is_folder, entry in found:
        if is_folder:
            yield from files_below(os.path.join(folder, name))  # noqa: PTH118
        elif name.lower().endswith(SUFFIXES) and entry.is_file():
            yield os.path.join(folder, name)  # noqa: PTH118


def _listed(file: Path) -> list[Row]:
    """The rows of a CSV file with columns path, label and (where there is one) split."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            header, rows = list(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} is no CSV file that can be read ({error}): expected columns path, label, split") from error
    columns = _columns(header, file)
    found: list[Row] = []
    for number, row in enumerate(rows, 2):
        name = (row[columns["path"]] or "").strip()
        split = (row.get(columns.get("split", ""), "") or "train").strip().lower()
        if split not in SPLIT_WORDS:
            known = ", ".join(SPLIT_WORDS)
            raise DataError(f"{file}, line {number}: split {split!r} is not known: expected one of {known}")
        label = (row.get(columns.get("label", ""), "") or "").strip() or None
        if name:
            found.append((name, name if is_address(name) else str(file.parent / name), label, SPLIT_WORDS[split]))
    return found


def _columns(header: list[str], file: Path) -> Mapping[str, str]:
    lower = {(h or "").strip().lower(): h for h in header}
    found = {}
    for role, names in COLUMNS.items():
        name = next((n for n in names if n in lower), None)
        if name is not None:
            found[role] = lower[name]
    if "path" not in found:
        raise DataError(f"{file} has the columns {', '.join(header) or 'none'}: expected path, label, split")
    return found


def _rows(found: Sequence[Row], classes: list[str], absent: int) -> ImageRows:
    index = {name: i for i, name in enumerate(classes)}
    found = sorted(found, key=lambda r: r[3])  # stable: train first
    return ImageRows(
        names=tuple(r[0] for r in found),
        paths=tuple(r[1] for r in found),
        labels=np.array([index.get(r[2], -1) if r[2] is not None else -1 for r in found], np.int64),
        is_val=np.array([r[3] for r in found], bool),
        classes=tuple(classes),
        absent=absent,
    )
