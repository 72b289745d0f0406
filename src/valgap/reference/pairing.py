"""Pairing: a sample's target is the class of the file that its image comes from.

Where files lie in folders by class, the targets that the loss saw are held against the folders, under the one naming of
classes that fits best. A folder that says nothing of the image (a date, a camera) is no class: it counts only where a probe on
sound features agrees better with the folders than with the targets.

Source: forum threads on custom data sets with separate lists of names and labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

import numpy as np

from valgap.features import Measurements
from valgap.features.source import class_names
from valgap.reference import mixing
from valgap.reference.positions import MADE_ONCE, rows_by_position
from valgap.reference.probing import MIN_IMAGES, answers, gained, held_out, likely_above
from valgap.stats import best_label_permutation, paired_difference
from valgap.types import Compared, Evidence, ImageRows, IntArray, Intervention, Measured, RunRecord, Untreatable

MAX_CLASSES = 1_000
MIN_TOLD = 20  # training images of a loop whose file is known
AGREE = 0.98
# Images that were drawn at least so often; the share of them that has several targets, and of draws that have the rarer ones.
# Equal images of several classes are a few in a hundred at most.
LEAST_DRAWS, CHANGING, STRAY = 3, 0.05, 0.1
LEAST_POINTS = 3.0
SURE = 0.97


def compare(run: RunRecord, images: Measurements | None) -> Compared:
    """The targets of both sides against the folders of their files; those of mixed images against what these are made of."""
    mixed = mixing.compare_pair(run)
    if mixed is not None:
        return mixed
    changing = _changing(run)
    if changing is not None:
        return changing
    if images is None:
        return Compared("unknown", "", missing="the image files of this run")
    if run.unlisted and run.unlisted_told < MIN_TOLD:
        return Compared("unknown", "", missing="files that training images, taken from arrays by a loop, can be told to be")
    rows = images.rows
    folder, names = _folders(rows.paths)
    known = rows.labels >= 0
    sides = [np.flatnonzero(known & (rows.is_val == side)) for side in (False, True)]
    if min(len(s) for s in sides) < MIN_IMAGES:
        return Compared("unknown", "", missing=f"{MIN_IMAGES} labelled images of either side")
    if not 2 <= len(names) <= MAX_CLASSES or len(names) > len(rows.labels) / 3:
        return Compared("unknown", "", missing="files in folders by class")
    classes = max(len(names), len(rows.classes))
    # Both sides are to follow one naming: that of the side that follows its own best.
    maps = [best_label_permutation(folder[s], rows.labels[s], classes) for s in sides]
    naming = max(maps, key=lambda m: m[1])[0]
    mapped = naming[folder]
    shares = [float((mapped[s] == rows.labels[s]).mean()) for s in sides]
    facts = tuple(
        Evidence(f"{side} targets that are the class of their file's folder", share, 1.0, "", len(s))
        for side, share, s in zip(("train", "val"), shares, sides, strict=True)
    )
    if min(shares) >= AGREE:
        return Compared("sound", "each target is the class of the folder that its image lies in", evidence=facts)
    measured = _measured(images, sides, mapped)
    if measured is None:
        return Compared("unknown", "", evidence=facts, missing="features that tell the classes or folders apart")
    points, nats, trusted, apart = measured
    own = _own_answers(run, rows, mapped) if shares[0] >= AGREE else None
    if not trusted:
        return Compared(
            "unknown",
            "",
            evidence=facts,
            missing="files in folders by class: these folders tell less of the images than the targets do",
        )
    worst = int(np.argmin(shares))
    n = round((1 - shares[worst]) * len(sides[worst]))
    # What the wrong targets cost is one question; that they are wrong is told by training images themselves.
    confidence = SURE * max(likely_above(points, LEAST_POINTS), likely_above(apart, LEAST_POINTS))
    side = ("training", "validation")[worst]
    told = f"{n} of {len(sides[worst])} {side} images have another class's target than their folder says"
    if confidence < 0.5:
        return Compared("sound", told + ", which costs nothing measurable", points, nats, confidence, facts)
    remedy = "take label and file name from the same row; print ten names beside their targets"
    faulty = [share < AGREE for share in shares]
    change = _treatment(run, rows, mapped, faulty)
    if own is not None:  # training is sound: the finished model's own answers tell what validation's targets cost
        return Compared("at fault", told, own, None, confidence, facts, remedy, own=True, treatment=change)
    if points.value <= 0:  # probes bear wrong targets better than a network does: what they cost it is not known
        return Compared("at fault", told, None, None, confidence, facts, remedy, treatment=change)
    return Compared("at fault", told, points, nats, confidence, facts, remedy, treatment=change)


def _changing(run: RunRecord) -> Compared | None:
    """The fault of images whose target is another one from time to time, where each has one class for the loss; else None."""
    train = run.last_train
    passes = [p for p in run.of_phase("train") if train is not None and p.dataset == train.dataset and p.model == train.model]
    if train is None or run.mixes(train) or not all(p.loss is not None and p.loss.target_kind == "index" for p in passes):
        return None
    sample, target = (np.concatenate([getattr(p.samples, name) for p in passes]) for name in ("sample", "target"))
    known = (sample >= 0) & (target >= 0)
    pairs, counts = np.unique(np.stack([sample[known], target[known]]), axis=1, return_counts=True)
    names, first, kinds = np.unique(pairs[0], return_index=True, return_counts=True)
    if not len(names):
        return None
    often = np.add.reduceat(counts, first)
    usual = np.maximum.reduceat(counts, first)  # draws of an image with its commonest target
    seen = often >= LEAST_DRAWS
    n = int(seen.sum())
    if n < MIN_TOLD:
        return None
    share, stray = float((kinds[seen] > 1).mean()), float(1 - usual[seen].sum() / often[seen].sum())
    if share < CHANGING or stray < STRAY:
        return None
    facts = (
        Evidence("training images with another target at another time", share, 0.0, "", n),
        Evidence("draws with another target than the image has most often", stray, 0.0, "", int(often[seen].sum())),
    )
    told = f"{share:.0%} of the training images come with several targets: {stray:.0%} of draws are wrong at least"
    remedy = "see what puts images and targets of a batch in order: shuffles, copies and concatenations must treat both alike"
    return Compared(
        "at fault", told, None, None, SURE, facts, remedy, treatment=Untreatable("which of the targets is right is not known")
    )


def _own_answers(run: RunRecord, rows: ImageRows, mapped: IntArray) -> Measured | None:
    """Points that validation's recorded answers gain where each file's folder is its target; None where they are not known."""
    last, train = run.last_validation, run.last_train
    indices = list(class_names(run, train)) if train is not None else []
    if last is None or not indices:
        return None
    place = {rows.names[i]: i for i in rows.part(True).tolist()}
    table, before, after = last.samples, [], []
    for sample, target, answer in zip(table.sample.tolist(), table.target.tolist(), table.prediction.tolist(), strict=True):
        row = place.get(run.sample_names[sample], -1) if sample >= 0 else -1
        if target < 0 or answer < 0 or row < 0 or not 0 <= mapped[row] < len(indices):
            continue
        before.append(answer == target)
        after.append(answer == indices[int(mapped[row])])
    if len(before) < MIN_IMAGES:
        return None
    return Measured(*(100 * v for v in paired_difference(np.array(before), np.array(after))))


def _treatment(run: RunRecord, rows: ImageRows, mapped: IntArray, faulty: Sequence[bool]) -> Intervention | Untreatable:
    """The targets of the sides at fault by their files' folders."""
    if run.made_once:
        return Untreatable(MADE_ONCE)
    train, val = run.last_train, run.last_validation
    indices = list(class_names(run, train)) if train is not None else []  # the program's, of the classes of ``rows``
    targets: dict[str, list[int]] = {}
    for one, is_val, wrong in zip((train, val), (False, True), faulty, strict=True):
        places = rows_by_position(run, rows, one.dataset, is_val) if one is not None and wrong else None
        if one is None or places is None:
            continue
        own = [int(mapped[i]) if i >= 0 else -1 for i in places.tolist()]
        new = [indices[k] if 0 <= k < len(indices) else -1 for k in own]
        known = targets.get(str(one.dataset), new)  # one data set may serve both
        targets[str(one.dataset)] = [a if a >= 0 else b for a, b in zip(known, new, strict=True)]
    if not targets:
        return Untreatable("the position of each file in its data set is not known")
    phase = "both" if all(faulty) else "validation" if faulty[1] else "train"
    return Intervention("pair_by_file", {"phase": phase, "targets": targets})


def _folders(paths: tuple[str, ...]) -> tuple[IntArray, list[str]]:
    """(folder of each file (N,), the folders' names)."""
    parents = [PurePath(n).parent.name for n in paths]
    known = sorted(set(parents))
    index = {n: i for i, n in enumerate(known)}
    return np.array([index[p] for p in parents], np.int64), known


def _measured(
    images: Measurements, sides: Sequence[IntArray], mapped: IntArray
) -> tuple[Measured, Measured, bool, Measured] | None:
    """(points, nats, whether folders say more of the images than targets): probes taught and asked by either.

    Last, by how many points held-out training images agree better with their folders than with their targets.
    """
    features, labels = images.embeddings, images.rows.labels
    if features is None:
        return None
    train, val = (s[np.isfinite(features[s, 0]) & (mapped[s] >= 0)] for s in sides)
    if min(len(train), len(val)) < MIN_IMAGES or min(len(np.unique(v[train])) for v in (labels, mapped)) < 2:
        return None
    classes = int(max(labels.max(), mapped.max())) + 1
    own = answers(features[train], labels[train], {"val": (features[val], labels[val])}, classes)["val"]
    by_file = answers(features[train], mapped[train], {"val": (features[val], mapped[val])}, classes)["val"]
    points, nats = gained(own, by_file)
    by_target, by_folder = (held_out(features[train], named[train], classes) for named in (labels, mapped))
    apart = Measured(*(100 * v for v in paired_difference(by_target, by_folder)))
    return points, nats, by_file.accuracy > own.accuracy or apart.low > 0, apart
