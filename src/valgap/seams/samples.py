"""Which sample is which: data sets numbered by identity, their samples by path or by content."""

from __future__ import annotations

import hashlib
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import torch

from valgap.record.writer import RecordWriter
from valgap.seams import datasets as ds


class Registry:
    """Numbers objects by identity, without keeping them alive."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, int]] = {}
        self._next = 0

    @property
    def count(self) -> int:
        """How many have been numbered."""
        return self._next

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
        self.names: dict[str, int] = {}
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
            names = _sample_names(leaf.dataset)
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


def _sample_names(leaf: Any) -> Any:
    paths = ds.paths_of(leaf)
    if paths is not None:
        root = ds.root_of(leaf)
        return [_path_name(p, root) for p in paths]
    return _Numbered(f"{type(leaf).__name__}-{_content_digest(leaf)}")


def _path_name(path: str, root: str | None) -> str:
    full = Path(path)
    if not full.is_absolute() and root is not None and not full.exists() and (Path(root) / full).exists():
        full = Path(root) / full
    absolute = os.path.abspath(full)  # noqa: PTH100 (resolve() would follow links and change the name)
    here = os.getcwd() + os.sep  # noqa: PTH109
    return absolute[len(here) :] if absolute.startswith(here) else absolute


def _content_digest(leaf: Any) -> str:
    """Eight hex digits of what tells one data set without paths from another: two objects over the same data agree."""
    digest = hashlib.blake2b(digest_size=4)
    digest.update(repr((type(leaf).__qualname__, ds.safe_len(leaf), ds.root_of(leaf))).encode())
    told = False
    for name in ("train", "split", "fold"):
        digest.update(repr((name, str(getattr(leaf, name, None)))).encode())
    for name in ("targets", "labels", "data", "tensors", "images"):
        value = getattr(leaf, name, None)
        value = value[0] if isinstance(value, tuple) and value else value
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu().numpy()
        if isinstance(value, list) and value and isinstance(value[0], (int, np.integer)):
            value = np.asarray(value)
        if isinstance(value, np.ndarray) and not value.dtype.hasobject and len(value):
            digest.update(np.ascontiguousarray(value[:: max(1, len(value) // 64)]).tobytes())
            told = True
    if not told:
        inner = getattr(leaf, "_data", None)  # a Hugging Face table
        mark = getattr(leaf, "_fingerprint", None) or (id(leaf) if inner is None else repr(inner)[:200])
        digest.update(repr(mark).encode())
    return digest.hexdigest()
