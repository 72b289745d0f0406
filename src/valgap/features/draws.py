"""Validation images that show one picture are one draw: what is known to so many images is known to so many pictures."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from valgap.features.measurements import Measurements
from valgap.types import RunRecord

# A few copies widen nothing that anybody would notice.
LEAST_COPIES = 1.1
NUMBERS = ("probe_n", "probe_start_n")


def by_pictures(record: RunRecord, images: Measurements | None) -> RunRecord:
    """The record, the standard errors of its closing measurements widened where validation holds copies of its own images.

    As if the copies of a picture were all right or all wrong together: the design effect of clusters of that size (Kish 1965).
    """
    if images is None or record.closing is None or not images.rows.is_val.any():
        return record
    val = images.pictures[images.rows.is_val]
    copies = len(val) / len(np.unique(val))
    if copies < LEAST_COPIES:
        return record
    widened = {
        name: value * math.sqrt(copies)
        if name.endswith("_se")
        else float(max(1, round(value / copies)))
        if name in NUMBERS
        else value
        for name, value in record.closing.numbers.items()
    }
    return replace(record, closing=replace(record.closing, numbers=widened))
