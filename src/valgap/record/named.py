"""Whether every sample of a record has a name: lines of an edited file may be gone, or stand where they are not read."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from valgap.types import IntArray, RunRecord


def check_named(record: RunRecord) -> None:
    """Nothing, where every sample id is that of a name.

    Raises:
        ValueError: one lies beyond the names; with its place.
    """
    count = len(record.sample_names)
    for place, ids in _ids(record):
        last = int(ids.max(initial=-1))
        if last >= count:
            raise ValueError(f"{place} has the sample {last}, and {count} samples have names")


def _ids(record: RunRecord) -> Iterator[tuple[str, IntArray]]:
    """(where they stand, sample ids); -1 stands for a sample that nobody can name."""
    for one in record.passes:
        yield f"pass {one.index}", one.samples.sample
    for info in record.datasets.values():
        if info.sample is not None:
            yield f"data set {info.id}", info.sample
    for images in record.kept:
        yield f"what was kept of pass {images.pass_index}", images.sample
    for rows in record.rows:
        yield f"what was kept of pass {rows.pass_index}", rows.sample
    for name, table in record.closing.rescores.items() if record.closing is not None else ():
        yield name, table.sample
    twins = record.closing.twins if record.closing is not None else None
    yield "a pair of twins", np.array([(t.train, t.validation) for t in twins or ()], np.int64)
