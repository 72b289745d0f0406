"""Many training images are copies of few originals.

What it looks for
    Training images that show the same picture as another training image: equal bytes, equal pixels, or near duplicates
    (resized, re-encoded, cropped, mirrored, brightened, turned, framed). Frames of one video and bursts count as well.

Why it hurts validation
    The model sees fewer different images than their number says, and overfits to those that are repeated.

What else looks like this
    A few repeats are in every collected set and cost nothing. Repeats across train and val are DAT101.

Remedy
    Keep one of each; split by original; augment while training instead of on disk.

Source
    Barz and Denzler 2020 (ciFAIR); Lee 2022 (deduplicating training data).
"""

from __future__ import annotations

import numpy as np

from valgap.checks.shared.images import drop_from_train, needed
from valgap.types import Case, Check, Clear, Evidence, Finding, ImagePair, Intervention, NotApplicable, RunRecord, Untreatable

# Share of training images that repeat others: below the first nothing is said, from the second we would bet.
HINT_SHARE = 0.02
BET_SHARE = 0.1


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Count training images that repeat an earlier one."""
    images = case.images
    listed = listed_again(case.run)
    if listed is not None and listed[0] >= BET_SHARE * listed[1]:
        return _of_the_list(case, *listed)
    if images is None or images.pairs is None:
        return NotApplicable(needed(images, "pairs"))
    rows = images.rows
    train = rows.part(False)
    if len(train) < 2:
        return NotApplicable("two training images")
    again = repeated(images.pairs, rows.is_val)
    share = len(again) / len(train)
    distinct = len(train) - len(again)
    facts = (
        Evidence("training images that repeat another", len(again), 0, "images", len(train)),
        Evidence("different pictures", distinct, len(train), "images"),
    )
    if share < HINT_SHARE:
        return Clear("hardly any training image repeats another", facts)
    return Finding(
        summary=f"{len(again)} of {len(train)} training images repeat others: {distinct} different pictures",
        severity_points=lost_points(case, distinct),
        confidence=float(np.interp(share, [HINT_SHARE, BET_SHARE, 0.3], [0.3, 0.5, 0.95])),
        evidence=facts,
        remedy="keep one image of each group, and augment while training rather than on disk",
        subjects=tuple(rows.names[i] for i in sorted(again)),
        stage="files",  # they lie there as files of their own
    )


def listed_again(run: RunRecord) -> tuple[int, int] | None:
    """(places of the last training data set that hold a sample once more, all places); None where samples are not known."""
    train = run.last_train
    dataset = run.datasets.get(train.dataset) if train is not None else None
    if dataset is None or dataset.sample is None or (dataset.sample < 0).any():
        return None
    return len(dataset.sample) - len(np.unique(dataset.sample)), len(dataset.sample)


def _of_the_list(case: Case, again: int, total: int) -> Finding:
    distinct = total - again
    return Finding(
        summary=f"{total} training samples are {distinct} different ones: the list holds them several times",
        severity_points=lost_points(case, distinct),
        confidence=float(np.interp(again / total, [BET_SHARE, 0.3], [0.5, 0.95])),
        evidence=(
            Evidence("places of the training list that hold a sample once more", again, 0, "places", total),
            Evidence("different samples", distinct, total, "samples"),
        ),
        remedy="list each sample once; train for more epochs instead, and augment",
    )


def repeated(pairs: tuple[ImagePair, ...], is_val: np.ndarray) -> set[int]:
    """Places of training images that repeat an earlier training image, directly or through others."""
    parent: dict[int, int] = {}

    def root(i: int) -> int:
        while parent.setdefault(i, i) != i:
            i = parent[i]
        return i

    for pair in pairs:
        if not is_val[pair.first] and not is_val[pair.second]:
            a, b = sorted((root(pair.first), root(pair.second)))
            parent[b] = a
    return {i for i in parent if root(i) != i}


def lost_points(case: Case, distinct: int) -> float:
    """What the learning curve says so many fewer images cost, in points; 0 without one."""
    curve = case.images.learning_curve if case.images is not None else None
    if curve is None:
        return 0.0
    means = curve.accuracies.mean(1)
    share = distinct / max(1, int(curve.sizes[-1]))
    if share >= 1:
        return 0.0
    # As many fresh images as there are repeats would move along the curve from `distinct` to the whole.
    at = float(np.interp(distinct, curve.sizes, means))
    return max(0.0, 100 * float(means[-1] - at))


def treat(case: Case, finding: Finding) -> Intervention | Untreatable:
    """One of each is kept in training; the placebo leaves out as many at random."""
    if not finding.subjects:
        return Untreatable("the same samples once is a shorter epoch, which says nothing of how many are different")
    return drop_from_train(case, finding.subjects)


CHECK = Check(code="DAT109", name="repeated_train_images", stage="draw", detect=detect, doc=__doc__ or "", treat=treat)
