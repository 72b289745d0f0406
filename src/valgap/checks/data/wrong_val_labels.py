"""Validation images with wrong labels: the accuracy has a ceiling.

What it looks for
    Validation images whose given class is improbable under a probe fitted on training features alone, with the same
    allowance for noise as in DAT104. The ranking lists all of them, most suspect first.

Why it hurts validation
    A right answer counts as wrong. With 5 % wrong labels the best possible model shows 95 %.

What else looks like this
    Classes of which training holds a few images: probes do not know them, and their labels are not judged.
    Validation of another kind than training (DAT106) lowers the probe's agreement everywhere, not on a few images with
    confident other answers. Class indices in another order (DAT102) disagree for whole classes.

Remedy
    Look at the ranking from the top; correct the labels, and judge the model on the corrected set.

Source
    Northcutt 2021b (label errors in test sets); Beyer 2020 (are we done with ImageNet).
"""

from __future__ import annotations

import math

from valgap.checks.data.one_class_validation import lacks_classes
from valgap.checks.data.wrong_train_labels import HINT_RATE, MIN_SUSPECTS, WRONG, confidence
from valgap.checks.shared.images import drop_from_validation, label_ranking, label_suspects, needed
from valgap.checks.shared.stage_faults import of_pairing
from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, NotApplicable

# A validation set this much unlike train in label agreement is shifted or remapped, not mislabelled here and there.
MAX_RATE_OVER_TRAIN = 0.5
# Share of train's noise rate that shows up as val's when val is sound: with ten classes never more than .01 at any rate, with two
# up to .17 of it (.056 at .33), which stays below a bet (``benchmarks/labels.py DATA --rates``).
INHERITED = 0.1
# Beyond what was measured so, training labels teach a probe next to nothing that could judge others.
MAX_TRAIN_RATE = 0.4
# Validation images that a classifier tells from training images this well are not train's probe to judge:
# without this, examples/faults/dark_blurred_validation.py is called mislabelled.
SHIFTED_P, SHIFTED_AUC = 0.01, 0.7


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """List the validation images whose labels are probably wrong."""
    images = case.images
    errors = images.label_errors if images is not None else None
    if images is None or errors is None:
        return NotApplicable(needed(images, "label_errors"))
    places = images.rows.part(True)
    ranking = label_ranking(images, errors, places)
    if not ranking:
        return NotApplicable("labelled validation images that can be read")
    suspects, judged = label_suspects(images, errors, places, WRONG)
    facts = (
        Evidence("estimated share of wrong validation labels", errors.val_rate, 0.0, "", judged, *errors.val_interval),
        Evidence("estimated share of wrong training labels", errors.train_rate, 0.0, ""),
    )
    if errors.val_rate - errors.train_rate > MAX_RATE_OVER_TRAIN:
        return Clear("most validation labels disagree with train's: a shift or other class indices", facts, ranking)
    if errors.train_rate > MAX_TRAIN_RATE:
        return Clear("most training labels look wrong: what learns from them cannot judge those of validation", facts, ranking)
    if lacks_classes(case):
        return Clear("validation lacks whole classes: its labels are judged once the split is mended", facts, ranking)
    shift = images.shift
    if shift is not None and shift.p_value < SHIFTED_P and shift.auc >= SHIFTED_AUC:
        return Clear("validation images are of another kind than train's, whose probe cannot judge them", facts, ranking)
    # Probes that learnt from wrong labels are wrong on sound ones: only what goes beyond that is val's own.
    inherited = INHERITED * (0.0 if math.isnan(errors.train_rate) else errors.train_rate)
    own = errors.val_rate - inherited
    if own < HINT_RATE or len(suspects) < MIN_SUSPECTS:
        return Clear("hardly any validation label looks wrong", facts, ranking)
    return Finding(
        summary=f"{len(suspects)} of {judged} validation labels look wrong ({errors.val_rate:.0%} estimated)",
        severity_points=100 * errors.val_rate,
        confidence=confidence(own, errors.val_interval[0] - inherited),
        evidence=facts,
        remedy="look at the ranked images from the top and correct the labels; no model can score above what they allow",
        subjects=suspects,
        ranking=ranking,
        stage=of_pairing(case),
    )


def treat(case: Case, finding: Finding) -> Intervention:
    """The suspects do not count; the placebo leaves out as many at random."""
    return drop_from_validation(finding.subjects)


CHECK = Check(code="DAT105", name="wrong_val_labels", stage="files", detect=detect, doc=__doc__ or "", treat=treat)
