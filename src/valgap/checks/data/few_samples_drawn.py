"""Training draws only a few of its samples, or only some of its classes.

What it looks for
    The samples and classes that all training passes drew, against those that the training set holds, and what a probe on the
    features of a pretrained network loses when it learns from what was drawn, as often as it was drawn.

Why it hurts validation
    What is never drawn is never learned; the loss of what is drawn looks better than ever.

What else looks like this
    Samplers that balance classes repeat some images and leave out others of the same classes; that costs next to nothing and
    is not told. Classes that have no training image at all are DAT111. A validation split drawn from the same data set is
    left out of the count.

Remedy
    Draw as many samples as there are, in one random order after another: no generator seeded with the same number in every
    epoch. Give WeightedRandomSampler one weight a sample (weights[targets]), not one a class.

Source
    deep-voice/soundbay pull request 49 (class weights where sample weights belong).
"""

from __future__ import annotations

from valgap.checks.shared.stage_faults import of_kind, treatment_of_kind
from valgap.types import Case, Check, Clear, Finding, Intervention, NotApplicable, Untreatable

REMEDY = (
    "draw all samples in every epoch, by a generator that goes on and is not seeded anew; "
    "WeightedRandomSampler needs one weight a sample (weights[targets]), not one a class"
)


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Ask for the comparison of the stage, and for this kind of fault in it."""
    return of_kind(case, ("draw",), "few", REMEDY, "training draws its samples")


def treat(case: Case, finding: Finding) -> Intervention | Untreatable:
    """The reference of the stage in its place."""
    return treatment_of_kind(case, ("draw",), "few")


CHECK = Check(code="DAT114", name="few_samples_drawn", stage="draw", detect=detect, doc=__doc__ or "", treat=treat)
