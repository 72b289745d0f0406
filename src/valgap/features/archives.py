"""Which images a container or a remote folder holds: zip files, WebDataset shards, Parquet files, and all of these elsewhere.

What comes out is what the same images in a folder would give: the same names, in the same order where images can be read in any
order (rows of Parquet files come as they lie).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from valgap.data import remote
from valgap.data.containers import stretch, table_of, tarred, zipped
from valgap.data.contents import is_address
from valgap.data.folder import VALIDATION_NAMES
from valgap.data.images import SUFFIXES
from valgap.errors import DataError

# (name, address, label name or None, whether validation)
Row = tuple[str, str, str | None, bool]
TRAIN_NAMES = ("train", "training")
TABLES = (".parquet", ".arrow")
CONTAINERS = (".zip", ".tar", *TABLES)
SHARDS = (".tar", *TABLES)
PACKED = (".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2")
# Sidecars of a WebDataset sample that name its class.
LABELS = (".cls", ".cls.txt", ".label")
WORD = re.compile(r"[^a-zA-Z]+")


@dataclass(frozen=True)
class Entry:
    """An image before it is known which splits there are."""

    name: str
    address: str
    label: str | None
    split: str  # "" where nothing says it


def holds_containers(folder: Path) -> bool:
    """Whether a local folder holds shards or Parquet files, and no images beside them."""
    found = False
    for path in folder.rglob("*"):
        if path.name.startswith("."):
            continue
        suffix = path.suffix.lower()
        if suffix in SUFFIXES:
            return False
        found = found or suffix in SHARDS
    return found


def rows_of_archive(data: str) -> list[Row]:
    """The images of a container (or a local folder of them) or of a remote address, train and validation.

    Raises:
        DataError: it cannot be read, or holds no image.
    """
    if data.lower().endswith(PACKED):
        raise DataError(f"{data} is packed as a whole: nothing in it can be found by its place; unpack it to a plain .tar")
    return chosen(list(_entries(data)))


def _entries(data: str) -> Iterator[Entry]:
    suffix = Path(data).suffix.lower()
    if suffix == ".zip":
        yield from _of_tree([(m.name, m.address) for m in zipped(data)])
    elif suffix in CONTAINERS:
        yield from _of_shards([data])
    elif is_address(data):
        yield from _of_listing(remote.listed(data), data)
    else:
        files = sorted(str(p) for p in Path(data).rglob("*") if p.suffix.lower() in SHARDS and not p.name.startswith("."))
        yield from _of_shards(files)


def _of_listing(found: list[tuple[str, str]], data: str) -> Iterator[Entry]:
    images = [one for one in found if one[0].lower().endswith(SUFFIXES)]
    shards = sorted(full for name, full in found if name.lower().endswith(SHARDS))
    if images:
        yield from _of_tree(images)
    elif shards:
        yield from _of_shards(shards)
    else:
        raise DataError(f"{data} lists no image, no shard (.tar) and no .parquet file: expected train/CLASS/image.jpg below it")


def _of_shards(files: list[str]) -> Iterator[Entry]:
    tars = [f for f in files if f.lower().endswith(".tar")]
    yield from _of_tars(tars)
    for file in files:
        if file.lower().endswith(TABLES):
            yield from _of_table(file)


# -- trees of names ---------------------------------------------------------------------------


def _of_tree(found: Iterable[tuple[str, str]]) -> Iterator[Entry]:
    """Entries by their names alone: a folder for the split, if any, and one for the class; one folder around all goes."""
    kept = [(name.replace("\\", "/"), address) for name, address in found]
    kept = [one for one in kept if one[0].lower().endswith(SUFFIXES) and not _hidden(one[0])]
    while kept and len({name.partition("/")[0] for name, _ in kept}) == 1 and all(name.count("/") >= 2 for name, _ in kept):
        if _split_word(kept[0][0].partition("/")[0]):
            break
        kept = [(name.partition("/")[2], address) for name, address in kept]
    splits = any(_split_word(name.partition("/")[0]) for name, _ in kept)
    for name, address in sorted(kept, key=lambda one: one[0].split("/")):
        parts = name.split("/")
        split = _split_word(parts[0]) if splits else ""
        below = parts[1:] if splits else parts
        yield Entry(name, address, below[0] if len(below) > 1 else None, split if split or not splits else "other")


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _split_word(text: str) -> str:
    return text if text in (*TRAIN_NAMES, *VALIDATION_NAMES) else ""


def _split_of(file: str) -> str:
    """The split that a word of a file's name says, or the folder around it: photos-train-00001.tar, val/0001.tar."""
    *_, folder, name = ["", *file.lower().split("/")]
    return next((word for word in WORD.split(name) if _split_word(word)), _split_word(folder))


# -- tar shards -------------------------------------------------------------------------------


def _of_tars(files: list[str]) -> Iterator[Entry]:
    """Samples of WebDataset shards: files of one key belong together, one of them may name the class."""
    images: list[tuple[str, str, str]] = []  # (name, address, shard)
    labels: dict[tuple[str, str], str] = {}
    for file in files:
        for name, address, offset, size in tarred(file):
            folder, slash, last = name.rpartition("/")
            stem, dot, suffix = last.partition(".")
            if last.lower().endswith(SUFFIXES):
                images.append((name, address, file))
            elif f"{dot}{suffix}".lower() in LABELS:
                labels[file, f"{folder}{slash}{stem}"] = stretch(file, offset, size).decode("utf-8", "replace").strip()
    if not labels:
        yield from _without_labels(images)
        return
    names = [name for name, _, _ in images]
    alone = len(set(names)) == len(names)
    for name, address, file in images:
        folder, slash, last = name.rpartition("/")
        label = labels.get((file, f"{folder}{slash}{last.partition('.')[0]}"))
        split = _split_of(file) or _split_word(name.partition("/")[0])
        yield Entry(name if alone else f"{Path(file).stem}/{name}", address, label, split)


def _without_labels(images: list[tuple[str, str, str]]) -> Iterator[Entry]:
    splits = {_split_of(file) for _, _, file in images}
    inside = any(_split_word(name.partition("/")[0]) for name, _, _ in images)
    if inside or splits == {""}:
        yield from _of_tree((name, address) for name, address, _ in images)
        return
    for split in sorted(splits):
        own = [(f"{split}/{name}" if split else name, address) for name, address, file in images if _split_of(file) == split]
        yield from _of_tree(own)


# -- Parquet ----------------------------------------------------------------------------------


def _of_table(file: str) -> Iterator[Entry]:
    """The rows of a Parquet file; images are called as their paths say, below split and class where these say neither."""
    table, split = table_of(file), _split_of(file)
    bare = {p for p in table.paths if p is not None and "/" not in p}
    for row, (path, label) in enumerate(zip(table.paths, table.labels, strict=True)):
        name = path if path is not None else f"{Path(file).stem}-{row}"
        if path is None or path in bare:
            name = "/".join(part for part in (split, label, name) if part)
        own = split or _split_word(name.partition("/")[0])
        yield Entry(name, f"parquet://{file}#{row}", label, own)


# -- which of them ----------------------------------------------------------------------------


def chosen(entries: list[Entry]) -> list[Row]:
    """Train and the first kind of validation that there is; without any word on splits, all are train."""
    known = {e.split for e in entries}
    val = next((n for n in VALIDATION_NAMES if n in known), None)
    train = [n for n in TRAIN_NAMES if n in known]
    taken = {*train, val} - {None} or {""}
    rows = [(e.name, e.address, e.label, e.split == val) for e in entries if e.split in taken]
    seen: set[str] = set()
    out: list[Row] = []
    for name, address, label, is_val in rows:
        other = name
        while other in seen:  # two images of one name are still two
            other = f"{name}#{len(seen)}"
        seen.add(other)
        out.append((other, address, label, is_val))
    return out
