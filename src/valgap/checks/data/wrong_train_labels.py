"""Training images with wrong labels.

What it looks for
    Training images whose given class is improbable under probes on pretrained features that never saw that label (held
    out), where the probes themselves allow for wrong labels. Every image gets a probability of being mislabelled and
    the class it more likely belongs to; the ranking lists all of them, most suspect first.

Why it hurts validation
    The model spends capacity on contradicting examples, memorises them, and its boundaries move.

What else looks like this
    Images that are hard, or show two classes, rank high too: look at them before dropping any. The estimated share takes
    errors that fall on all classes alike for wrong labels, and errors that follow pairs of classes only as far as they are
    significant: below some 1,000 images, confusions between two similar classes are undercounted. An image of something
    else (a hoverfly among bees) is ranked only where its class has a word among ImageNet's 1,000 and the pretrained
    network has another word of that kind for the image; such images are never suspects by that alone. When labels and
    images do not belong together at all, see DAT113; wrong labels in validation are DAT105.

Remedy
    Look at the ranking from the top; relabel or drop what is wrong.

Source
    Northcutt 2021 (confident learning); Wei 2022 (CIFAR-10N, real human label noise).
"""

from __future__ import annotations

import math

import numpy as np

from valgap.checks.shared.images import drop_from_train, label_ranking, label_suspects, needed
from valgap.checks.shared.stage_faults import of_pairing
from valgap.types import Case, CaseImages, Check, Clear, Evidence, Finding, Intervention, NotApplicable, Stage, Untreatable

# An image is listed as a subject when its label is wrong with at least this probability.
WRONG = 0.5
# Estimated noise rates at which we would bet, and above which there is at least a hint. ``benchmarks/labels.py DATA --rates``
# prints the estimates behind them: on four sound sets at most .008, on CIFAR-10N .08 and above.
BET_RATE = 0.06
HINT_RATE = 0.02
MIN_SUSPECTS = 3
# Points lost for each point of wrong labels, about: fine-tuned networks lose between a third and two thirds (Wei 2022, table 2).
POINTS_PER_POINT = 0.4
# Where the interval of the rate is wider than this, the images are too few to judge single labels.
UNKNOWN = 0.4
# Standard errors taken off the rate that the difference between both sides suggests; validation may be the easier side.
Z = 2.0


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """List the training images whose labels are probably wrong."""
    images = case.images
    errors = images.label_errors if images is not None else None
    if images is None or errors is None:
        return NotApplicable(needed(images, "label_errors"))
    places = images.rows.part(False)
    ranking = label_ranking(images, errors, places)
    if not ranking:
        return NotApplicable("labelled training images that can be read")
    suspects, judged = label_suspects(images, errors, places, WRONG)
    held = images.held_out
    facts = (
        Evidence("estimated share of wrong training labels", errors.train_rate, 0.0, "", judged, *errors.train_interval),
        Evidence(
            f"training images whose label is wrong with probability {WRONG} or more", len(suspects), 0, "images", len(places)
        ),
        Evidence("held-out agreement of a probe with the training labels", held.train_accuracy if held else None, None, ""),
    )
    if errors.train_interval[1] - errors.train_interval[0] > UNKNOWN:
        return from_both_sides(images, facts, of_pairing(case))
    if errors.train_rate < HINT_RATE or len(suspects) < MIN_SUSPECTS:
        return Clear("hardly any training label looks wrong", facts, ranking)
    return Finding(
        summary=f"{len(suspects)} of {judged} training labels look wrong ({errors.train_rate:.0%} estimated)",
        severity_points=100 * POINTS_PER_POINT * errors.train_rate,
        confidence=confidence(errors.train_rate, errors.train_interval[0]),
        evidence=facts,
        remedy="look at the ranked images from the top, relabel or drop those that are wrong, and train again",
        subjects=suspects,
        ranking=ranking,
        stage=of_pairing(case),
    )


def from_both_sides(images: CaseImages, facts: tuple[Evidence, ...], stage: Stage | None) -> Finding | NotApplicable:
    """The rate at which a probe fitted on train meets validation labels more often than held-out training labels.

    For uniform noise at rate r, a probe of accuracy a agrees with a share (1 - r) a + r (1 - a) / (C - 1) of the labels.
    """
    missing = NotApplicable("enough images to tell how many training labels are wrong")
    held, rows = images.held_out, images.rows
    n, outside = (int((rows.labels[rows.part(side)] >= 0).sum()) for side in (False, True))
    if held is None or not n or not outside or math.isnan(held.val_accuracy):
        return missing
    on_train, on_val = held.train_accuracy, held.val_accuracy
    other = (1 - on_val) / max(1, len(rows.classes) - 1)
    if on_val <= other:
        return missing
    error = math.sqrt(on_train * (1 - on_train) / n + on_val * (1 - on_val) / outside) / (on_val - other)
    rate = (on_val - on_train) / (on_val - other)
    low, high = rate - Z * error, min(1.0, rate + Z * error)
    if low < BET_RATE:
        return missing
    side = Evidence("agreement of the same probe with the validation labels", on_val, on_train, "", outside)
    share = Evidence("share of wrong training labels that would make up the difference", rate, 0.0, "", n, low, high)
    return Finding(
        summary=f"about {rate:.0%} of the training labels look wrong: a probe fitted on them meets {on_val:.0%} of the "
        f"validation labels, and {on_train:.0%} of held-out training labels",
        severity_points=100 * POINTS_PER_POINT * rate,
        confidence=float(np.interp(low, [BET_RATE, 3 * BET_RATE], [0.5, 0.7])),
        evidence=(*facts, side, share),
        remedy="look at a hundred training images with their labels; too few are here to say which labels are wrong",
        stage=stage,
    )


def confidence(rate: float, low: float) -> float:
    """0.3 at HINT_RATE, 0.5 at BET_RATE, 0.95 from three times that on, for what the rate is at least.

    ``low`` is the lower end of its 90 % interval: one standard error is taken off.
    """
    at_least = rate - (rate - low) / 1.645
    return float(np.interp(at_least, [HINT_RATE, BET_RATE, 3 * BET_RATE], [0.3, 0.5, 0.95]))


def treat(case: Case, finding: Finding) -> Intervention | Untreatable:
    """The suspects are not drawn for training; the placebo leaves out as many at random."""
    return drop_from_train(case, finding.subjects)


CHECK = Check(
    code="DAT104",
    name="wrong_train_labels",
    stage="files",
    detect=detect,
    doc=__doc__ or "",
    treat=treat,
    shows_late="how many wrong labels it learns by heart",
)
