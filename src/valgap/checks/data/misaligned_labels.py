"""Images and labels do not belong together: matched by position in two lists of different order.

What it looks for
    Held-out probes on pretrained features that predict the training labels no better than chance, and features whose
    nearest neighbours share labels no more often than unrelated images. If the labels fit again after a shift by a few
    places in the list, that is named.

Why it hurts validation
    There is nothing to learn: the loss stays near ln C, then the images are memorised, and validation stays at chance.

What else looks like this
    Many wrong labels (DAT104) leave some agreement. A task that pretrained features cannot see at all (texture of noise)
    looks the same: look at a few images with their labels. Shifted indices in validation alone are DAT102.

Remedy
    Match images and labels by name instead of by position; look at ten images with their labels.

Source
    PyTorch forum threads on custom data sets with `os.listdir` and a separate label file.
"""

from __future__ import annotations

import math

import numpy as np

from valgap.checks.shared.images import needed
from valgap.stats import wilson_interval
from valgap.types import Case, Check, Clear, Evidence, Finding, FloatArray, IntArray, NotApplicable

MIN_IMAGES = 50
MAX_IMAGES = 2_000
SHIFTS = (1, -1, 2, -2, 3, -3)
NEIGHBOURS = 5
# Standard errors above chance at which labels are held to mean something.
Z = 3.0
# Where agreement may reach this share of the way from chance to 1, labels of which a part is wrong explain it as well.
ROOM = 0.1
HINT = 0.4


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Compare the agreement of labels with features against chance."""
    images = case.images
    held = images.held_out if images is not None else None
    if images is None or held is None or images.embeddings is None:
        return NotApplicable(needed(images, "held_out"))
    places = np.flatnonzero(held.folds >= 0)
    if len(places) < MIN_IMAGES:
        return NotApplicable(f"{MIN_IMAGES} labelled training images")
    labels = images.rows.labels[places]
    shares = np.bincount(labels) / len(labels)
    chance = float(shares.max())
    error = math.sqrt(chance * (1 - chance) / len(labels))
    low, high = wilson_interval(round(held.train_accuracy * len(labels)), len(labels))
    some = places[:: max(1, len(places) // MAX_IMAGES)]
    near = neighbour_agreement(images.embeddings[some], images.rows.labels[some], 0)
    unrelated = float((shares**2).sum())
    facts = [
        Evidence("held-out agreement with the training labels", held.train_accuracy, None, "", len(labels), low, high),
        Evidence("accuracy of always answering the largest class", chance),
        Evidence("neighbours in feature space that share the label", near, None, "", len(some)),
        Evidence("the same for unrelated images", unrelated),
    ]
    spread = math.sqrt(unrelated * (1 - unrelated) / len(some))
    outside = images.rows.labels[images.rows.part(True)]
    outside = outside[outside >= 0]
    if len(outside):
        facts.append(Evidence("agreement of the probe with the validation labels", held.val_accuracy, None, "", len(outside)))
    carries = len(outside) >= MIN_IMAGES and held.val_accuracy > above_chance(outside, labels)
    if held.train_accuracy > chance + Z * error or near > unrelated + Z * spread or carries:
        return Clear("labels go with what the images show", tuple(facts))
    shift, agreement = best_shift(images.embeddings[places[:MAX_IMAGES]], labels[:MAX_IMAGES])
    shifted = agreement > unrelated + 2 * Z * math.sqrt(unrelated * (1 - unrelated) / len(places))
    if shifted:
        facts.append(Evidence(f"neighbours that share the label when labels are moved by {shift} places", agreement, near))
    return Finding(
        summary="labels have nothing to do with the images" + (f": they are moved by {shift} places" if shifted else ""),
        severity_points=100 * (1 - chance) * 0.5,
        confidence=0.95 if shifted else HINT if high - chance > ROOM * (1 - chance) else 0.7,
        evidence=tuple(facts),
        remedy="match images and labels by file name, not by position in two lists; then look at ten of them",
    )


def above_chance(outside: IntArray, labels: IntArray) -> float:
    """The accuracy on ``outside`` that answers without a look at the images hardly reach."""
    most = max(float((outside == label).mean()) for label in np.unique(labels))
    return most + Z * math.sqrt(most * (1 - most) / len(outside))


def neighbour_agreement(features: FloatArray, labels: IntArray, shift: int) -> float:
    """Share of each image's nearest neighbours that have its label, after moving labels by ``shift`` places."""
    centred = features - features.mean(0)
    centred = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)
    likeness = centred @ centred.T
    np.fill_diagonal(likeness, -np.inf)
    k = min(NEIGHBOURS, len(labels) - 1)
    near = np.argpartition(-likeness, k - 1, axis=1)[:, :k]
    moved = np.roll(labels, -shift)
    return float((moved[near] == moved[:, None]).mean())


def best_shift(features: FloatArray, labels: IntArray) -> tuple[int, float]:
    """(shift, agreement) of the shift by a few places under which neighbours share labels most often."""
    found = {s: neighbour_agreement(features, labels, s) for s in SHIFTS}
    best = max(found, key=lambda s: found[s])
    return best, found[best]


CHECK = Check(code="DAT113", name="misaligned_labels", stage="pair", detect=detect, doc=__doc__ or "")
