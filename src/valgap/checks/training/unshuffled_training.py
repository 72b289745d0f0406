"""Training batches hold one class after the other.

What it looks for
    The number of different labels in each training batch, against as many labels drawn at random from the whole data set
    (from what was seen, where that is all there is): by how much they fall short, and that chance does not explain it.

Why it hurts validation
    Each batch pulls the network towards its own class; what it learned of the others is overwritten, and BatchNorm sees
    one class at a time.

What else looks like this
    Class-balanced samplers put more classes into a batch than chance, not fewer.

Remedy
    `DataLoader(..., shuffle=True)` for training.

Source
    nni pull request 4696, modelarts-example issue 55; PyTorch documentation of DataLoader.
"""

from __future__ import annotations

import numpy as np

from valgap.checks.shared.seen_part import labels_of
from valgap.checks.training.training_on_validation import stepping_validation
from valgap.types import Case, Check, Clear, Evidence, Finding, IntArray, Intervention, NotApplicable

# Mean number of classes per batch over its expectation under random order; random order gives 1 within a few percent
# (300 images or more), sorted folders below a half.
SORTED_SHARE = 0.6
MIN_IMAGES = 16
# Standard deviations below what random order gives: once in thirty thousand sound runs.
Z = 4.0
UNMEASURED_POINTS = 8.0
# Where every batch has one class, each step undoes the last: nothing need be left.
MOST_POINTS = 90.0


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Compare the classes per batch with random order."""
    stepping = stepping_validation(case.run)  # unshuffled as validation is meant to be
    train = next((p for p in reversed(case.run.of_phase("train")) if p not in stepping), None)
    if train is None or int(train.samples.labelled.sum()) < MIN_IMAGES:
        return NotApplicable(f"a training pass with {MIN_IMAGES} labelled images")
    keep = train.samples.labelled
    whole = labels_of(case.run, train)
    pool = whole[0] if whole is not None and len(whole[0]) else train.samples.target[keep]
    found, expected, short = classes_per_batch(train.samples.target[keep], train.samples.batch[keep], pool)
    facts = (Evidence("different classes per training batch", found, expected, "classes", train.num_batches),)
    if expected < 1.2:
        return NotApplicable("batches in which chance puts more than one class")
    if found / expected > SORTED_SHARE or short < Z:
        return Clear("training batches are mixed", facts)
    return Finding(
        summary=f"training batches hold {found:.1f} classes where random order gives {expected:.1f}",
        severity_points=UNMEASURED_POINTS,
        confidence=0.95,
        evidence=(*facts, Evidence("cost (no re-run): assumed", UNMEASURED_POINTS, 0.0, "points")),
        remedy="shuffle the training data: DataLoader(train_set, shuffle=True)",
        most_points=MOST_POINTS * (1 - (found - 1) / max(expected - 1, 1e-9)),
    )


def classes_per_batch(target: IntArray, batch: IntArray, pool: IntArray) -> tuple[float, float, float]:
    """(observed, expected of random draws from ``pool``, standard deviations between): mean number of classes per batch.

    A class of share q is in a batch of n images with chance 1 - (1 - q) ** n (drawing with replacement).
    """
    shares = np.bincount(pool) / len(pool)
    sizes = np.array([int((batch == b).sum()) for b in np.unique(batch)])
    seen = np.array([len(np.unique(target[batch == b])) for b in np.unique(batch)])
    chances = 1 - (1 - shares[None, :]) ** sizes[:, None]
    # Being drawn instead of another class makes each of them rarer: independent draws err on the wide side.
    spread = np.sqrt((chances * (1 - chances)).sum()) / len(sizes)
    expected = float(chances.sum(axis=1).mean())
    z = (expected - float(seen.mean())) / max(float(spread), 1e-9)
    return float(seen.mean()), expected, z


def treat(case: Case, finding: Finding) -> Intervention:
    """Training samples in random order."""
    return Intervention("shuffle", {"phase": "train"})


CHECK = Check(code="TRN408", name="unshuffled_training", stage="draw", detect=detect, doc=__doc__ or "", treat=treat)
