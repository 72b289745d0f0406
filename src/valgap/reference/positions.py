"""Where the images of a Case sit in the program's data sets: what a substitution by sample goes by."""

from __future__ import annotations

import numpy as np

from valgap.types import ImageRows, IntArray, RunRecord

MADE_ONCE = "the program makes its features once, before it trains: its images are not there to be exchanged while it runs"


def rows_by_position(run: RunRecord, rows: ImageRows, dataset: int, is_val: bool) -> IntArray | None:
    """(N,) the row of each position of a data set, among the images of one side; -1 for none. None where none is known."""
    info = run.datasets.get(dataset)
    if info is None or info.sample is None or info.size != len(info.sample):
        return None
    place = {rows.names[i]: i for i in rows.part(is_val).tolist()}
    found = np.array([place.get(run.sample_names[s], -1) if s >= 0 else -1 for s in info.sample.tolist()], np.int64)
    return found if (found >= 0).any() else None


def files_by_position(run: RunRecord, rows: ImageRows, dataset: int, is_val: bool) -> list[str] | None:
    """The file of each position, "" where it is not known; None where none is."""
    found = rows_by_position(run, rows, dataset, is_val)
    return [rows.paths[i] if i >= 0 else "" for i in found.tolist()] if found is not None else None
