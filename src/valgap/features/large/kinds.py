"""Images that show another kind of thing than their class, among any number of them: concepts by a sample, a look at all."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from valgap.features.large.sampled import stratified_sample
from valgap.features.large.table import BLOCK, DiskFeatures
from valgap.features.large.wrong_labels import SLAB, Keep, views_of
from valgap.features.other_kinds import NO_WORDS, called_by, own_concepts, seen_closer
from valgap.models.lite0 import load_lite0
from valgap.types import ImageRows, IntArray, OtherKinds

# Images by whose mean words a class is told to have a word of its own: probabilities of a class of 20 are off by .1 at most.
SAMPLED = 20_000


def other_kinds(
    features: DiskFeatures,
    rows: ImageRows,
    readable: npt.NDArray[np.bool_],
    progress: Callable[[int, int], None],
    keep: Keep,
) -> OtherKinds | str:
    """As ``other_kinds.other_kinds``; ``progress`` is told of images judged, then of the closer look."""
    network = load_lite0()
    learnt = np.flatnonzero(readable & ~rows.is_val & (rows.labels >= 0))
    sample = stratified_sample(learnt, rows.labels, SAMPLED)
    means: list[npt.NDArray[np.floating]] = []
    for start in range(0, len(sample), BLOCK):
        means.append(np.asarray(called_by(network, _last(features, sample[start : start + BLOCK])), np.float32))
    own = own_concepts(np.concatenate(means), rows.labels[sample]) if means else {}
    if not own:
        return NO_WORDS
    masks = np.zeros((len(rows.classes), len(next(iter(own.values()))[1])), bool)
    for label, (_, others) in own.items():
        masks[label] = others
    judged = np.flatnonzero(readable & np.isin(rows.labels, list(own)))

    def judge(start: int) -> dict[str, npt.NDArray[np.generic]]:
        part, scores = judged[start : start + SLAB], []
        for at in range(0, len(part), BLOCK):
            places = part[at : at + BLOCK]
            called = called_by(network, _last(features, places))
            scores.append((called * masks[rows.labels[places]]).max(axis=1))
            progress(start + at + len(places), len(judged))
        return {"scores": np.concatenate(scores)}

    slabs = [keep(f"kinds{start // SLAB}", partial(judge, start))["scores"] for start in range(0, len(judged), SLAB)]
    promising = np.asarray(np.concatenate(slabs), np.float64)
    return seen_closer(network, rows, own, judged, promising, progress)


def _last(features: DiskFeatures, places: IntArray) -> list[npt.NDArray[np.floating]]:
    """The last features of each view."""
    return [np.asarray(view[0]) for view in views_of(features, places)]
