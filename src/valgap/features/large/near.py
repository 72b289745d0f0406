"""Pairs of images that show one picture, in a set of any size: neighbours by an index, aligned a block at a time.

Exact search compares every image with every other: below EXACT_MOST images that is the faster way. Above, a graph index
(usearch: HNSW, Malkov and Yashunin 2016) finds all but one in some thousand of the same (benchmarks/neighbours.py), in
time that grows by the images. Without that library exact search is used at any size, and it is said that it takes long.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from valgap.features.alignment import Aligner
from valgap.features.large.table import BLOCK, DiskFeatures, LookTable
from valgap.features.pairs import (
    COARSE_FLOOR,
    NEIGHBOURS,
    SEARCH_DIMENSIONS,
    SOME_FEATURE,
    nearest_exact,
    principal_directions,
    same,
    unit_rows,
)
from valgap.types import ImagePair, IntArray

Values = npt.NDArray[np.float32]
EXACT_MOST = 100_000
# Rows that directions are fitted on.
DIRECTIONS_ROWS = 4_000
# The index's links of a node, and how many it follows as it adds and as it searches.
LINKS, EXPAND_ADD, EXPAND_SEARCH = 16, 128, 128
PAIRS_BLOCK = 2_048
ALIGN_BLOCK = 256
# A pair whose similarity changes by less in a step has found its place: a third less time, and none of 2,744 pairs of real copies
# is lost (of .0003 three).
SETTLED = 1e-4
Progress = Callable[[int, int], None]


def has_index() -> bool:
    """Whether the library of the index is there."""
    try:
        import usearch.index  # noqa: F401
    except ImportError:
        return False
    return True


def neighbours(features: DiskFeatures, among: IntArray, progress: Progress) -> tuple[IntArray, IntArray, Values]:
    """(first, second) places and their mean's reference: see ``pairs.neighbours``; cosines are taken later, block by block.

    Returns:
        First and second of each pair, places of the set, and the mean (D,) of the features around which cosines are taken.
    """
    total = np.zeros(features.shape[1])
    for _, block in features.blocks(among):
        total += block.sum(0, dtype=np.float64)
    mean = np.asarray(total / len(among), np.float32)
    stride = max(1, len(among) // DIRECTIONS_ROWS)
    sample = unit_rows(features[among[::stride]] - mean)
    directions = principal_directions(sample, min(SEARCH_DIMENSIONS, *sample.shape))
    small = np.empty((len(among), directions.shape[1]), np.float32)
    done = 0
    for places, block in features.blocks(among):
        small[done : done + len(places)] = unit_rows(unit_rows(block - mean) @ directions)
        done += len(places)
    k = min(NEIGHBOURS, len(among) - 1)
    search = by_index if len(among) > EXACT_MOST and has_index() else nearest_exact
    near = search(small, k, progress)
    own = np.repeat(np.arange(len(among)), k)
    # One number a pair: half the memory of two columns, and quick to sort.
    found = near.ravel() >= 0
    low, high = np.minimum(own, near.ravel())[found], np.maximum(own, near.ravel())[found]
    codes = np.unique(low.astype(np.int64) * len(among) + high)
    return among[codes // len(among)], among[codes % len(among)], mean


def by_index(small: Values, k: int, progress: Progress) -> IntArray:
    """(n, k) places of each row's nearest others by an HNSW index; -1 where it finds fewer."""
    from usearch.index import Index

    n = len(small)
    index = Index(
        ndim=small.shape[1], metric="ip", dtype="f32", connectivity=LINKS, expansion_add=EXPAND_ADD,
        expansion_search=EXPAND_SEARCH,
    )  # fmt: skip
    for start in range(0, n, BLOCK):
        keys = np.arange(start, min(n, start + BLOCK))
        # Threads that begin an index side by side may leave rows of it unconnected.
        index.add(keys, small[keys], threads=0 if start else 1)
        progress(start + len(keys), 2 * n)
    near = np.full((n, k), -1, np.int32)
    for start in range(0, n, BLOCK):
        own = np.arange(start, min(n, start + BLOCK))
        keys = np.asarray(index.search(small[own], k + 1).keys).astype(np.int64)
        other = keys != own[:, None]
        # The row itself stands first, but among equal rows any of them may; it goes, else the last does.
        other[other.all(1), -1] = False
        near[own] = keys[other].reshape(len(own), k)
        progress(n + start + len(own), 2 * n)
    return near


def aligned(
    table: LookTable, features: DiskFeatures, first: IntArray, second: IntArray, mean: Values, progress: Progress
) -> list[ImagePair]:
    """The pairs that show one picture, in no order."""
    found: list[ImagePair] = []
    for start in range(0, len(first), PAIRS_BLOCK):
        ends = [end[start : start + PAIRS_BLOCK] for end in (first, second)]
        places, back = np.unique(np.concatenate(ends), return_inverse=True)
        a, b = np.split(back, 2)
        rows = unit_rows(features[places] - mean)
        feature = (rows[a] * rows[b]).sum(1)
        # Below it no pair is told, however well its pictures agree: it need not be aligned.
        near = feature >= SOME_FEATURE
        a, b, feature = a[near], b[near], feature[near]
        if len(a):
            found += _confirmed(places, np.asarray(table.take("thumb", places), np.uint8), a, b, feature)
        progress(min(start + PAIRS_BLOCK, len(first)), len(first))
    return found


def _confirmed(places: IntArray, thumbs: npt.NDArray[np.uint8], a: IntArray, b: IntArray, feature: Values) -> list[ImagePair]:
    aligner = Aligner(thumbs)

    def of_block(start: int) -> list[ImagePair]:
        part = slice(start, start + ALIGN_BLOCK)
        rough, maps, flip = aligner.coarse(a[part], b[part])
        keep = rough >= COARSE_FLOOR
        if not keep.any():
            return []
        first, second, alike = a[part][keep], b[part][keep], feature[part][keep]
        picture, detail = aligner.refined(first, second, maps[keep], flip[keep], SETTLED)
        ends = [sorted((int(places[first[i]]), int(places[second[i]]))) for i in range(len(first))]
        return [
            ImagePair(ends[i][0], ends[i][1], "near", float(picture[i])) for i in np.flatnonzero(same(alike, picture, detail))
        ]

    # numpy works outside Python's lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [pair for found in pool.map(of_block, range(0, len(a), ALIGN_BLOCK)) for pair in found]
