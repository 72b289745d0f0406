"""Samples of two data sets that are the same file, or files that hold the same bytes."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np

from valgap.seams.looking.samples import Samples

MAX_HASHED_BYTES = 2 << 30


def twin_rows(samples: Samples, train: int, val: int, deadline: float) -> list[tuple[int, int, str, float]] | None:
    """(train id, val id, kind, similarity) of the twins of two data sets; None where the samples' identities are not known."""
    of_train, of_val = _sample_ids(samples, train), _sample_ids(samples, val)
    if of_train is None or of_val is None:
        return None
    names = list(samples.names)
    rows: list[tuple[int, int, str, float]] = [(int(i), int(i), "same_file", 1.0) for i in np.intersect1d(of_train, of_val)]
    own = {i for i, _, _, _ in rows}
    others = [(int(i), names[i]) for i in of_val if i not in own]
    by_content = same_bytes([(int(i), names[i]) for i in of_train], others, deadline)
    return rows + [(a, b, "same_bytes", 1.0) for a, b in by_content]


def _sample_ids(samples: Samples, dataset: int) -> Any:
    """The ids of a data set's samples, each once; None where not all are known."""
    ids = samples.ids.get(dataset)
    if ids is None or (ids < 0).any():
        return None
    return np.unique(ids)


def same_bytes(train: list[tuple[int, str]], val: list[tuple[int, str]], deadline: float) -> list[tuple[int, int]]:
    """(train id, val id) of files with the same content under different names; reads only equal sizes, until the deadline."""
    sizes: dict[int, list[tuple[int, str]]] = {}
    for item in train:
        path = Path(item[1])
        if path.is_file():
            sizes.setdefault(path.stat().st_size, []).append(item)
    digests: dict[str, bytes] = {}
    read = 0

    def digest(name: str) -> bytes:
        nonlocal read
        if name not in digests:
            within = read < MAX_HASHED_BYTES and time.perf_counter() < deadline
            data = Path(name).read_bytes() if within else name.encode()
            read += len(data)
            digests[name] = hashlib.blake2b(data, digest_size=16).digest()
        return digests[name]

    pairs: list[tuple[int, int]] = []
    for number, name in val:
        path = Path(name)
        if not path.is_file():
            continue
        for other, other_name in sizes.get(path.stat().st_size, []):
            if digest(other_name) == digest(name):
                pairs.append((other, number))
    return pairs
