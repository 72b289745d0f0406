"""Which sample is which: data sets numbered by identity, their samples by path or by content."""

from __future__ import annotations

import hashlib
import math
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import torch

from valgap.record.writer import RecordWriter
from valgap.seams.looking import datasets as ds
from valgap.seams.looking.content import content_keys, content_name

# Augmented images never come again: after so many new contents, with fewer than this share seen twice, none are named.
MAX_FRESH = 50_000
AGAIN_SHARE = 0.1
# Of tensors in memory, samples are named by what their rows hold while these are no more than so many rows, and values, in all.
MOST_ROWS, MOST_VALUES = 500_000, 1 << 29
ROWS_AT_ONCE = 512


class Registry:
    """Numbers objects by identity, without keeping them alive."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, int]] = {}
        self._next = 0

    @property
    def count(self) -> int:
        """How many have been numbered."""
        return self._next

    def knows(self, thing: Any) -> bool:
        """Whether it has a number."""
        known = self._known.get(id(thing))
        return known is not None and known[0]() is thing

    def number(self, thing: Any) -> tuple[int, bool]:
        """(id, whether it is new)."""
        known = self._known.get(id(thing))
        if known is not None and known[0]() is thing:
            return known[1], False
        try:
            reference: Any = weakref.ref(thing)
        except TypeError:  # no weak references to this class: keep it
            reference = lambda: thing  # noqa: E731
        self._known[id(thing)] = (reference, self._next)
        self._next += 1
        return self._next - 1, True

    def alias(self, old: Any, new: Any) -> None:
        """From now on ``new`` has the number of ``old``; both are kept alive."""
        self._known[id(new)] = ((lambda: new), self.number(old)[0])


class Samples:
    """The data sets and samples that a program was seen to load; each is described in the record when it is new."""

    def __init__(self, writer: RecordWriter) -> None:
        self.writer = writer
        self.datasets = Registry()
        self.leaves = Registry()  # innermost data sets that list no files
        self.names: dict[str, int] = {}
        self.renamed: dict[int, dict[int, int]] = {}  # data set -> old id -> new id
        self._by_content: dict[int, int] = {}
        self._fresh = self._again = 0  # contents that were new, and that came again
        self._rows = self._values = 0  # of tensors in memory that were named
        self.memory: dict[int, weakref.ref[Any]] = {}  # what rows were taken of, by the number of the data set
        self._keys: dict[int, torch.Tensor] = {}  # tensor in memory, by its number -> (N,) content keys of its rows
        self.ids: dict[int, Any] = {}  # data set -> (N,) sample ids by position, None where it has no length

    def dataset_id(self, dataset: Any) -> int:
        """The number of a data set; describes it in the record when it is new."""
        dataset_id, new = self.datasets.number(dataset)
        if not new:
            return dataset_id
        size = ds.safe_len(dataset)
        ids = np.full(max(size, 0), -1, np.int32)
        targets: Any = np.full(max(size, 0), -1, np.int32)
        parts = ds.leaves(dataset) if size > 0 else []
        for leaf in parts:
            names = self._names_of(leaf.dataset)
            ids[leaf.position] = self._intern([names[i] for i in leaf.index.tolist()])
            declared = ds.targets_of(leaf.dataset)
            if declared is not None:
                targets[leaf.position] = declared[leaf.index]
        found = ds.transform_of(dataset)
        self.ids[dataset_id] = ids if size > 0 else None
        known = size > 0 and bool((targets >= 0).all())
        self.writer.write(
            "dataset",
            {
                "id": dataset_id,
                "kind": type(dataset).__name__,
                "source": type(parts[0].dataset if parts else dataset).__name__,
                "size": size,
                "root": ds.root_of(dataset),
                "class_to_idx": ds.class_map_of(dataset),
                "targets": targets if known else None,
                "sample": ids if size > 0 else None,
                "transform": None if found is None else [vars(s) for s in found.steps],
                "transform_text": ds.transform_text(found),
            },
        )
        return dataset_id

    def _names_of(self, leaf: Any) -> Any:
        paths = ds.paths_of(leaf)
        if paths is not None:
            root = ds.root_of(leaf)
            return [path_name(p, root) for p in paths]
        return _Numbered(f"{type(leaf).__name__}-{_content_digest(leaf, self.leaves.number(leaf)[0])}")

    def memory_id(self, rows: Any) -> int:
        """The number of a tensor or array whose rows the program uses as samples; describes it as a data set when it is new."""
        dataset_id, new = self.datasets.number(rows)
        if new:
            body = {"id": dataset_id, "kind": type(rows).__name__, "source": "memory", "size": len(rows), "transform": None}
            nothing = dict.fromkeys(("root", "class_to_idx", "targets"))
            ids = self._ids_of_rows(dataset_id, rows)
            self.writer.write("dataset", {**body, **nothing, "sample": ids, "transform_text": ""})
            self.ids[dataset_id] = ids
            self.memory[dataset_id] = weakref.ref(rows)
        return dataset_id

    def _ids_of_rows(self, dataset_id: int, rows: Any) -> Any:
        """(N,) the ids of rows by what they hold now; None where they are too many, or of a kind that torch does not take."""
        self._rows, self._values = self._rows + len(rows), self._values + math.prod(rows.shape)
        if self._rows > MOST_ROWS or self._values > MOST_VALUES:
            return None
        parts = (rows[i : i + ROWS_AT_ONCE] for i in range(0, len(rows), ROWS_AT_ONCE))
        try:  # of an array copies: torch warns of those that cannot be written to
            keys = torch.cat([content_keys(p if isinstance(p, torch.Tensor) else torch.from_numpy(np.array(p))) for p in parts])
        except TypeError:
            return None
        self._keys[dataset_id] = keys
        return self._named(keys.tolist())

    def keys_of(self, dataset_id: int, positions: Any) -> torch.Tensor | None:
        """(n,) the content keys that these rows of a tensor in memory had at first; None where they are not known."""
        keys = self._keys.get(dataset_id)
        return keys[torch.as_tensor(positions, device=keys.device)] if keys is not None else None

    def _named(self, keys: list[int]) -> Any:
        """(N,) ids of contents; new ones get a name."""
        known = self._by_content
        fresh = sorted({k for k in keys if k not in known})
        known.update(zip(fresh, self._intern([content_name(k) for k in fresh]).tolist(), strict=True))
        return np.array([known[k] for k in keys], np.int32)

    def ids_of_keys(self, keys: Any) -> Any:
        """(N,) ids of samples that are known by their content alone; -1 once it is clear that contents do not come again."""
        known = self._by_content
        fresh = {int(k) for k in keys if int(k) not in known}
        self._fresh += len(fresh)
        self._again += len(keys) - len(fresh)
        if self._fresh > MAX_FRESH and self._again < AGAIN_SHARE * self._fresh:
            return np.array([known.get(int(k), -1) for k in keys], np.int32)
        return self._named([int(k) for k in keys])

    def id_of_content(self, key: int) -> int:
        """The id of the sample with this content; -1 where none was seen."""
        return self._by_content.get(key, -1)

    def rename(self, dataset_id: int, positions: Any, names: list[str]) -> None:
        """Samples of a data set, by position, turn out to be these files; the record's reader gives them the new ids too."""
        own = self.ids[dataset_id]
        self.rename_ids(dataset_id, own[positions].tolist(), names)
        own[positions] = [self.names[n] for n in names]

    def rename_ids(self, dataset_id: int, ids: list[int], names: list[str]) -> None:
        """The same for samples whose ids are known."""
        new = self._intern(names)
        self.writer.write("renamed", {"dataset": dataset_id, "old": np.array(ids, np.int32), "new": new})
        self.renamed.setdefault(dataset_id, {}).update(zip(ids, new.tolist(), strict=True))

    def _intern(self, names: list[str]) -> Any:
        fresh = [n for n in dict.fromkeys(names) if n not in self.names]
        for name in fresh:
            self.names[name] = len(self.names)
        if fresh:
            text = "\n".join(n.replace("\\", "\\\\").replace("\n", "\\n") for n in fresh)
            packed = np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8)
            self.writer.write("names", {"first": self.names[fresh[0]], "count": len(fresh), "text": packed})
        return np.array([self.names[n] for n in names], np.int32)


class _Numbered:
    """Names for samples without a path: ``NAME[17]``, made on demand."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getitem__(self, index: int) -> str:
        return f"{self.name}[{index}]"


def path_name(path: str, root: str | None = None) -> str:
    """The name of a file in the record: relative to the working folder where it lies below; a member keeps its ``!member``."""
    file, mark, member = path.partition("!") if not os.path.lexists(path) else (path, "", "")
    full = Path(file)
    if not full.is_absolute() and root is not None and not full.exists() and (Path(root) / full).exists():
        full = Path(root) / full
    absolute = os.path.abspath(full)  # noqa: PTH100 (resolve() would follow links and change the name)
    here = os.getcwd() + os.sep  # noqa: PTH109
    return (absolute[len(here) :] if absolute.startswith(here) else absolute) + mark + member


def _content_digest(leaf: Any, number: int) -> str:
    """Eight hex digits of what tells one data set without paths from another: two objects over the same data agree.

    Where its data cannot be looked at, its ``number`` tells it from others: the same in every run of a program.
    """
    digest = hashlib.blake2b(digest_size=4)
    digest.update(repr((type(leaf).__qualname__, ds.safe_len(leaf), ds.root_of(leaf))).encode())
    told = False
    for name in ("train", "split", "fold"):
        digest.update(repr((name, str(ds.held(leaf, name)))).encode())
    for name in ("targets", "labels", "data", "tensors", "images"):
        value = ds.held(leaf, name)
        value = value[0] if isinstance(value, tuple) and value else value
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu().numpy()
        if isinstance(value, list) and value and isinstance(value[0], (int, np.integer)):
            value = np.asarray(value)
        if isinstance(value, np.ndarray) and not value.dtype.hasobject and len(value):
            digest.update(np.ascontiguousarray(value[:: max(1, len(value) // 64)]).tobytes())
            told |= value.ndim > 1  # labels alone are alike in many data sets
    if not told:
        inner = ds.held(leaf, "_data")  # a Hugging Face table
        mark = ds.held(leaf, "_fingerprint") or (number if inner is None else repr(inner)[:200])
        digest.update(repr(mark).encode())
    return digest.hexdigest()
