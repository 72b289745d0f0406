"""Fixed random samples of many images, as many of each class as its share."""

from __future__ import annotations

import numpy as np

from valgap.types import IntArray


def stratified_sample(places: IntArray, labels: IntArray, size: int, seed: int = 0) -> IntArray:
    """About ``size`` of the places, sorted: of each class (``labels`` of all images) its share, and at least one.

    What is measured on n of them has the standard error of a simple sample of n at most; no further error enters.
    """
    if len(places) <= size:
        return places
    rng = np.random.default_rng(seed)
    mixed = rng.permutation(places)
    order = np.argsort(labels[mixed], kind="stable")
    ordered = mixed[order]
    counts = np.unique(labels[ordered], return_counts=True)[1]
    wanted = np.maximum(1, np.round(counts * (size / len(places)))).astype(np.int64)
    starts = np.cumsum(counts) - counts
    within = np.arange(len(ordered)) - np.repeat(starts, counts)
    return np.sort(ordered[within < np.repeat(wanted, counts)])
