"""Validation holds one class, or one block of a sorted list.

What it looks for
    The class shares of validation against those of training. A split that was cut before shuffling leaves whole classes
    out of one side. Where the validation set does not even name the classes that it lacks (their folders are missing), fewer
    images are enough to tell.

Why it hurts validation
    The accuracy then measures a few classes only, and training lacks what validation asks for.

What else looks like this
    A validation that was cut short sees the first classes of a sorted list only: the whole data sets are compared, as far
    as they declare their labels. Of a thousand classes, a few images leave most out. A different but complete mix of
    classes is a shift of class shares (DAT106). Classes that train lacks altogether are DAT111 as well.

Remedy
    Shuffle before splitting, and split stratified by class.

Source
    keras issue 3894, mlr3keras issue 43.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import gammaln

from valgap.checks.data.unmatched_classes import by_chance
from valgap.checks.shared.seen_part import labels_of, unseen
from valgap.types import Case, Check, Clear, Evidence, Finding, IntArray, NotApplicable

# The chance that a random draw from train's class shares leaves out so many classes must be below this.
CHANCE = 1e-4
# The same where validation has no folder for them: an image that is missing may be bad luck, a folder hardly.
CHANCE_UNNAMED = 1e-2
MIN_IMAGES = 10
UNCOMPARABLE_POINTS = 10.0


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Compare the classes present in validation with a random draw from training's class shares."""
    train, val = case.run.last_train, case.run.last_validation
    if train is None or val is None or int(val.samples.labelled.sum()) < MIN_IMAGES:
        return NotApplicable(f"a training pass and {MIN_IMAGES} labelled validation images")
    both = labels_of(case.run, train, val)
    if both is None:
        return NotApplicable(unseen(case.run, train, val))
    ours, theirs = both
    if len(theirs) < MIN_IMAGES:
        return NotApplicable(f"{MIN_IMAGES} labelled validation images")
    if len(ours) == 0:
        return NotApplicable("labels of the training samples")
    classes = int(max(ours.max(), theirs.max())) + 1
    present = len(np.unique(theirs))
    union = len(np.unique(np.concatenate([ours, theirs])))
    log_chance = log_chance_of_absence(ours, theirs, classes)
    facts = (
        Evidence("classes present in validation", present, union, "classes", len(theirs)),
        Evidence("log10 of the chance of a random split leaving these out", log_chance / math.log(10), 0.0),
    )
    if union < 2:
        return NotApplicable("two classes in the data")
    names = [set(info.class_to_idx or ()) if (info := case.run.datasets.get(p.dataset)) else set() for p in (train, val)]
    unnamed = bool(names[1]) and names[1] < names[0]
    if present == union or log_chance > math.log(CHANCE_UNNAMED if unnamed else CHANCE):
        return Clear("validation holds the classes that a random split would give it", facts)
    if present > 1 and present * 2 > union:
        # A few missing classes may be meant so, or are a missing folder: those have names of their own.
        return Clear("most classes are in validation; single ones are missing", facts)
    disjoint = not np.isin(theirs, ours).any()
    return Finding(
        summary=f"validation holds {present} of {union} classes" + (", none of which train saw" if disjoint else ""),
        severity_points=_points(val.samples.accuracy, disjoint),
        confidence=0.9,
        evidence=facts,
        remedy="shuffle before splitting, and split stratified by class",
    )


def lacks_classes(case: Case) -> bool:
    """Whether this is the cause; what the split does to labels and shares is then not named once more."""
    return isinstance(detect(case), Finding)


def log_chance_of_absence(train: IntArray, val: IntArray, classes: int) -> float:
    """Natural log of an upper bound of the chance that a random draw lacks so many classes, whichever they are."""
    shares = np.bincount(train, minlength=classes) / len(train)
    foreign = np.isin(val, np.flatnonzero(shares == 0))
    if foreign.all():
        return 0.0 if by_chance(train, foreign) else -math.inf
    absent = np.setdiff1d(np.arange(classes), val)
    missing = float(shares[absent].sum())
    if missing <= 0:  # nothing of train is absent; what train lacks in its turn is no block of it
        return 0.0
    held, gone = int((shares > 0).sum()), int((shares[absent] > 0).sum())
    choices = float(gammaln(held + 1) - gammaln(gone + 1) - gammaln(held - gone + 1))
    return min(0.0, choices + int((~foreign).sum()) * math.log(max(1e-12, 1 - missing)))


def _points(accuracy: float, disjoint: bool) -> float:
    # With disjoint classes nothing can be right, so everything is lost; else the accuracy is simply not comparable, and what the
    # finding weighs is an assumption.
    return 100 * (1 - accuracy) if disjoint else UNCOMPARABLE_POINTS


CHECK = Check(code="DAT112", name="one_class_validation", stage="files", detect=detect, doc=__doc__ or "")
