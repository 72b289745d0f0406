"""Wrong labels among any number of images: probes fitted on a stratified sample of train, which then judge every image.

The images of the sample are judged out of fold, all others by the probes of the whole sample, which never saw them. The shares
of wrong labels are those of samples, and their intervals say so.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from valgap.features.labels import MIN_OF_CLASS, UNKNOWN, View, calibrated, fitted_probes, with_shares
from valgap.features.large.sampled import stratified_sample
from valgap.features.large.table import BLOCK, DiskFeatures
from valgap.features.noise import noise_rate
from valgap.features.probes import folds_of
from valgap.types import HeldOut, ImageRows, IntArray, LabelErrors

Array = npt.NDArray[np.float64]
# Gives what the function makes, or what it made before of the same images, under a name.
Keep = Callable[[str, Callable[[], dict[str, npt.NDArray[np.generic]]]], dict[str, npt.NDArray[np.generic]]]
# Images that are judged between one keeping and the next.
SLAB = 100_000
# Images that probes are fitted on, fewer where there are so many classes that tables of (images, classes) grow large.
FITTED, FITTED_CELLS, FEWEST = 20_000, 8_000_000, 5_000
WIDTHS = ((1280, 320, 192), (1280, 320, 192))


def views_of(features: DiskFeatures, places: IntArray) -> list[View]:
    """Each view of these images by depth, as ``Measurements.views``."""
    block = features[places]
    ends = np.cumsum([0, *(w for widths in WIDTHS for w in widths)]).tolist()
    parts = iter(np.ascontiguousarray(block[:, i:j]) for i, j in pairwise(ends))
    return [[next(parts) for _ in widths] for widths in WIDTHS]


def label_errors(
    features: DiskFeatures, rows: ImageRows, held: HeldOut, progress: Callable[[int, int], None], keep: Keep
) -> LabelErrors:
    """As ``labels.label_errors``; ``progress`` is told of images judged, SLAB of which are kept at a time by ``keep``."""
    classes, labels = len(rows.classes), rows.labels
    train = np.flatnonzero(held.folds >= 0)
    val = np.flatnonzero(rows.is_val & (labels >= 0) & (held.answers >= 0))
    most = max(FEWEST, min(FITTED, FITTED_CELLS // classes))
    sample = stratified_sample(train, labels, most)
    everywhere = np.arange(len(sample))
    fold = folds_of(labels[sample])
    splits = [(everywhere[fold != k], everywhere[fold == k]) for k in np.unique(fold)]
    splits.append((everywhere, everywhere[:0]))
    inside, probes = fitted_probes(views_of(features, sample), labels[sample], classes, fold, splits)
    known = np.bincount(labels[sample], minlength=classes) >= MIN_OF_CLASS
    inside[:, ~known] = 0.0
    ours, theirs = (labels[p][known[labels[p]]] for p in (sample, val))
    own, likely = np.full(len(labels), np.nan), np.full(len(labels), -1, np.int64)
    kept = stratified_sample(val, labels, most)
    of_val = np.zeros((len(kept), classes))
    judged = np.concatenate([np.setdiff1d(train, sample), val])

    def judge(start: int) -> dict[str, npt.NDArray[np.generic]]:
        part = judged[start : start + SLAB]
        out = np.empty(len(part)), np.empty(len(part), np.int64)
        shown: list[Array] = []
        for at in range(0, len(part), BLOCK):
            places = part[at : at + BLOCK]
            found = probes.of(views_of(features, places))
            found[:, ~known] = 0.0
            side = rows.is_val[places]
            found[side] = with_shares(found[side], ours, theirs)
            out[0][at : at + len(places)] = found[np.arange(len(places)), labels[places]]
            out[1][at : at + len(places)] = found.argmax(1)
            shown.append(found[np.isin(places, kept)])
            progress(start + at + len(places), len(judged))
        return {"own": out[0], "likely": out[1], "val": np.concatenate(shown)}

    seen = 0
    for start in range(0, len(judged), SLAB):
        slab = keep(f"labels{start // SLAB}", partial(judge, start))
        own[judged[start : start + SLAB]], likely[judged[start : start + SLAB]] = slab["own"], slab["likely"]
        # Val stands behind train among the judged, in the order of the sample of it.
        of_val[seen : seen + len(slab["val"])] = slab["val"]
        seen += len(slab["val"])
    own[sample], likely[sample] = inside[everywhere, labels[sample]], inside.argmax(1)
    wrong = np.full(len(labels), np.nan)
    rates = [UNKNOWN, UNKNOWN]
    sides: list[tuple[IntArray, IntArray, Array]] = [(train, sample, inside), (val, kept, of_val)]
    for number, (of_side, shown, table) in enumerate(sides):
        taken = known[labels[shown]]
        known_ones = of_side[known[labels[of_side]]]
        if len(known_ones) and taken.any():
            rates[number] = noise_rate(table[taken], labels[shown[taken]])
            wrong[known_ones] = calibrated(1 - own[known_ones], rates[number][0])
    likely = np.where(np.isfinite(wrong), likely, -1)
    (train_rate, *train_range), (val_rate, *val_range) = rates
    return LabelErrors(wrong, likely, train_rate, val_rate, (train_range[0], train_range[1]), (val_range[0], val_range[1]))
