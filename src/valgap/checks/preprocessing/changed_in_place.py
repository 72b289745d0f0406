"""Images are changed in place: each pass sees what the one before left of them.

What it looks for
    The spread of the values of the same training images in the first and in the last pass, as the model was given them, where
    they also cost a probe on a pretrained network's features.

Why it hurts validation
    A cached array that is normalised in place is normalised again in every epoch, until no picture is left.

What else looks like this
    Augmentation of contrast changes single images up and down, not all of them in one direction. Normalisation that is
    learned changes both sides alike and little.

Remedy
    Copy the cached item before changing it (`self.images[i].copy()`, `x = x - mean` instead of `x -= mean`).

Source
    facebookresearch/pycls pull request 21 (in-place normalisation of cached arrays).
"""

from __future__ import annotations

from valgap.checks.shared.stage_faults import of_kind, treatment_of_kind
from valgap.types import Case, Check, Clear, Finding, Intervention, NotApplicable, Untreatable

REMEDY = "copy the cached item before changing it (`self.images[i].copy()`, `x = x - mean` instead of `x -= mean`)"


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Ask for the comparison of the stage, and for this kind of fault in it."""
    return of_kind(case, ("read_train", "read_val"), "changed", REMEDY, "the same images stay the same from pass to pass")


def treat(case: Case, finding: Finding) -> Intervention | Untreatable:
    """The reference of the stage in its place."""
    return treatment_of_kind(case, ("read_train", "read_val"), "changed")


CHECK = Check(code="PRE211", name="changed_in_place", stage="read_train", detect=detect, doc=__doc__ or "", treat=treat)
