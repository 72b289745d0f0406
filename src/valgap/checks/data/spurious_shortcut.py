"""A by-product of the files tells the class in train but not in val.

What it looks for
    Whether size, format, border, brightness, compression and the like alone predict the class of training images (held
    out), and whether that prediction breaks down on validation images.

Why it hurts validation
    The model learns the by-product (all bees came from one camera, all defects were saved as PNG) and fails where it is
    absent.

What else looks like this
    An attribute that tells the class in validation as well (snow scenes are bright) belongs to the class. An attribute that
    merely differs between train and val, for all classes alike, is DAT106.

Remedy
    Make the by-product the same for all classes (one size, one format, no borders), or vary it at random in training.

Source
    Geirhos 2020 (shortcut learning); Zech 2018 (hospital system predicted from X-rays).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from valgap.checks.shared.images import class_name, needed
from valgap.stats import wilson_interval
from valgap.types import Attributes, Case, Check, Clear, Evidence, Finding, IntArray, NotApplicable, Untreatable

NUMBERS = (
    "width", "height", "aspect", "bits_per_pixel", "brightness", "contrast", "sharpness", "colourfulness", "jpeg_quality",
    "border", "grey",
)  # fmt: skip
WORDS = ("format", "mode", "camera")
BINS = 6
FOLDS = 5
# Accuracy above always answering the largest class that makes one attribute a shortcut, and the share of that advantage
# which must be gone on val. On the four sound sets single attributes reach .16 at most.
ADVANTAGE = 0.25
LOST = 0.5
Z = 3.0
MIN_IMAGES = 40


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Predict the class from each attribute alone, on held-out train and on val."""
    images = case.images
    if images is None:
        return NotApplicable(needed(None, ""))
    rows = images.rows
    known = rows.labels >= 0
    train, val = np.flatnonzero(known & ~rows.is_val), np.flatnonzero(known & rows.is_val)
    if min(len(train), len(val)) < MIN_IMAGES or len(np.unique(rows.labels[train])) < 2:
        return NotApplicable(f"{MIN_IMAGES} labelled images of two classes on each side")
    classes = len(rows.classes)
    chance = float(np.bincount(rows.labels[train]).max() / len(train))
    val_chance = float((rows.labels[val] == np.bincount(rows.labels[train]).argmax()).mean())
    best, name = (0.0, 0.0), ""
    for attribute, codes in coded(images.attributes, train).items():
        inside, outside = accuracies(codes, rows.labels, train, val, classes)
        gain, left = float(inside.mean()) - chance, float(outside.mean()) - val_chance
        if gain > best[0]:
            best, name, right = (gain, left), attribute, (inside, outside)
    if not name:
        return Clear("no attribute of the files tells the class")
    facts = (
        _accuracy(f"class told from {name} alone, held-out train", right[0], chance),
        _accuracy(f"class told from {name} alone, val", right[1], val_chance),
    )
    noise = Z * math.sqrt(0.25 / len(val) + 0.25 / len(train))
    if best[0] < ADVANTAGE or best[1] > LOST * best[0] or best[0] - best[1] < noise:
        return Clear("no by-product of the files tells the class in train only", facts)
    worst = worst_class(images.attributes, name, rows.labels, train)
    return Finding(
        summary=f"{name} alone tells the class in train ({best[0] + chance:.0%}) but not in val ({best[1] + val_chance:.0%})",
        severity_points=100 * 0.5 * (best[0] - max(0.0, best[1])),
        confidence=0.8,
        evidence=facts,
        remedy=f"make {name} the same for all classes, or vary it at random in training",
        subjects=tuple(f"class {class_name(rows, c)}" for c in worst),
    )


def coded(attributes: Attributes, train: IntArray) -> dict[str, IntArray]:
    """Attribute -> (N,) small whole numbers: quantile bins of train, or kinds of words; constant ones are left out."""
    found: dict[str, IntArray] = {}
    for name in NUMBERS:
        values = attributes.numbers[name]
        own = values[train][np.isfinite(values[train])]
        if len(own) == 0 or (np.ptp(own) == 0 and np.isfinite(values[train]).all()):
            continue
        edges = np.unique(np.quantile(own, np.linspace(0, 1, BINS + 1)[1:-1]))
        found[name] = np.where(np.isfinite(values), np.searchsorted(edges, values, side="right") + 1, 0).astype(np.int64)
    for name in WORDS:
        kinds = sorted({attributes.words[name][i] for i in train})
        if 1 < len(kinds) <= 20:
            found[name] = np.array([kinds.index(w) if w in kinds else len(kinds) for w in attributes.words[name]], np.int64)
    return found


def accuracies(
    codes: IntArray, labels: IntArray, train: IntArray, val: IntArray, classes: int
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """(right on held-out train, right on val) of answering each code's commonest class."""
    size = int(codes.max()) + 1

    def rule(places: IntArray) -> IntArray:
        table = np.zeros((size, classes))
        np.add.at(table, (codes[places], labels[places]), 1.0)
        table += 0.5 * np.bincount(labels[places], minlength=classes) / len(places)
        return np.asarray(table.argmax(1))

    right = np.zeros(len(train), bool)
    fold = np.random.default_rng(0).permutation(len(train)) % FOLDS
    for number in range(FOLDS):
        part = train[fold == number]
        right[fold == number] = rule(train[fold != number])[codes[part]] == labels[part]
    return right, np.asarray(rule(train)[codes[val]] == labels[val])


def worst_class(attributes: Attributes, name: str, labels: IntArray, train: IntArray) -> list[int]:
    """The class whose training images differ most from the others in this attribute."""
    codes = coded(attributes, train)[name]
    size = int(codes.max()) + 1
    whole = np.bincount(codes[train], minlength=size) / len(train)
    distance = {}
    for label in np.unique(labels[train]).tolist():
        own = train[labels[train] == label]
        distance[label] = float(np.abs(np.bincount(codes[own], minlength=size) / len(own) - whole).sum())
    return [max(distance, key=lambda c: distance[c])]


def _accuracy(name: str, right: npt.NDArray[np.bool_], chance: float) -> Evidence:
    low, high = wilson_interval(int(right.sum()), len(right))
    return Evidence(name, float(right.mean()), chance, "", len(right), low, high)


def treat(case: Case, finding: Finding) -> Untreatable:
    """An attribute of the files cannot be made equal by a change at a seam."""
    return Untreatable("the by-product lies in the files: save them alike, then train again")


CHECK = Check(code="DAT110", name="spurious_shortcut", stage="files", detect=detect, doc=__doc__ or "", treat=treat)
