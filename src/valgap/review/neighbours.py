"""The nearest sure images of two classes beside each suspect: the class that it was given, and the one that is likely.

Who judges a picture need not know the classes by heart. Sure: labelled, no suspect, and its label right by held-out probes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from valgap.review.suspects import Suspect
from valgap.types import CaseImages, FloatArray

SHOWN = 4
SURE = 0.1  # probability that its label is wrong
CHUNK = 256


def with_neighbours(suspects: Sequence[Suspect], images: CaseImages | None) -> list[Suspect]:
    """The suspects with the places, in ``images.rows``, of the ``SHOWN`` nearest sure images of both classes, the nearest first.

    Nearest: by the cosine between the features of the bundled backbone, around their mean. A copy of the suspect says nothing of
    its class and is left out. Without features or label probes there are none.
    """
    errors = images.label_errors if images is not None else None
    if images is None or errors is None or images.embeddings is None:
        return list(suspects)
    rows = images.rows
    place = {name: i for i, name in enumerate(rows.names)}
    number = {name: i for i, name in enumerate(rows.classes)}
    features = _around_mean(images.embeddings)
    usable: npt.NDArray[np.bool_] = ~np.isnan(features.sum(axis=1))
    copies: dict[int, list[int]] = defaultdict(list)
    for pair in images.pairs or ():
        copies[pair.first].append(pair.second)
        copies[pair.second].append(pair.first)
    sure: npt.NDArray[np.bool_] = np.asarray((rows.labels >= 0) & (errors.wrong < SURE) & usable)
    sure[[place[s.path] for s in suspects if s.path in place]] = False
    wanted: dict[int, list[tuple[int, str]]] = defaultdict(list)  # class -> suspects that ask for it, and for which side
    for i, one in enumerate(suspects):
        if one.path in place and usable[place[one.path]]:
            for side in ("given", "likely"):
                if (of := number.get(getattr(one, side))) is not None:
                    wanted[of].append((i, side))
    found: dict[tuple[int, str], tuple[int, ...]] = {}
    for of, asked in wanted.items():
        known = np.flatnonzero(sure & (rows.labels == of))
        for start in range(0, len(asked), CHUNK):
            part = asked[start : start + CHUNK]
            own = [place[suspects[i].path] for i, _ in part]
            cosines = features[own] @ features[known].T
            for key, row, line in zip(part, own, cosines, strict=True):
                line[np.isin(known, copies[row])] = -np.inf
                found[key] = tuple(known[_largest(line)].tolist())
    return [
        replace(one, near_given=found.get((i, "given"), ()), near_likely=found.get((i, "likely"), ()))
        for i, one in enumerate(suspects)
    ]


def _around_mean(features: FloatArray) -> FloatArray:
    """The features (N, D) around their mean, each of length one."""
    moved = features - np.nanmean(features, axis=0)
    lengths = np.linalg.norm(moved, axis=1, keepdims=True)
    out: FloatArray = moved / np.where(lengths > 0, lengths, 1.0)
    return out


def _largest(line: FloatArray) -> npt.NDArray[np.int_]:
    """Places of up to ``SHOWN`` finite values, the largest first."""
    most = min(SHOWN, len(line))
    places = np.argpartition(-line, most - 1)[:most] if most else np.zeros(0, int)
    ordered: npt.NDArray[np.int_] = places[np.argsort(-line[places], kind="stable")]
    return ordered[np.isfinite(line[ordered])]
