"""What the finished model says of images read from their files, beside what the program gave it.

It is the best probe of its own reading: the points are the program's, on all of validation. What both sides do alike it is
used to; of that it only tells that they do it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from valgap.reference.probing import Answers, above_chance, gained, likely_above
from valgap.reference.seen_images import Colours, Side, cosines
from valgap.types import AskedAgain, IntArray, Measured, RunRecord, TwiceAnswered

# Points of validation, and of training beyond that, from which two ways of reading are told apart.
LEAST_OWN, LEAST_APART = 3.0, 8.0
SURE_OWN = 0.95
# Points that validation must lose by its files before the model is taken to be used to another way of reading.
USED_TO = 15.0
# By so much less may training images be like their files than validation images are, before theirs is the odd reading.
LESS_LIKE = 0.15
# By so many spreads more may the values of one side be bent than those of the other, before theirs is the odd reading: light and
# usual augmentation come to .06, parts erased in every image to .12, a bound that cuts off a half to .4.
BENT = 0.15


@dataclass(frozen=True)
class Apart:
    """Two ways of reading that the finished model does not take for one: what it costs validation, and whose is the odd one."""

    side: Literal["train", "val"]
    points: Measured | None
    nats: Measured | None
    confidence: float


def apart_by(again: AskedAgain, odd: Literal["train", "val"]) -> Apart | None:
    """Whether the finished model answers its files better than validation, or worse than training, as the program reads them."""
    if again.val is None:
        return None
    points, nats = gained(*answers_of(again.val))
    # Another crop may answer some images otherwise by chance; what was read wrongly costs loss as well.
    confidence = SURE_OWN * likely_above(points, LEAST_OWN) if nats.value > 0 else 0.0
    if confidence >= 0.5:
        return Apart(odd, points, nats, confidence)
    if again.train is None:
        return None
    lost, loss = (Measured(-m.value, -m.high, -m.low) for m in gained(*answers_of(again.train)))
    # A model that knows its training images by heart may stumble over any other way to read them: as often as on validation.
    excused = max(-points.value, 100 * again.val.changed)
    width = float(np.hypot(lost.high - lost.value, points.high - points.value))
    beyond = Measured(lost.value - excused, lost.value - excused - width, lost.value - excused + width)
    confidence = SURE_OWN * likely_above(beyond, LEAST_APART)
    return Apart("train", beyond, loss, confidence) if confidence >= 0.5 else None


def alike_by(again: AskedAgain | None, labels: IntArray) -> bool:
    """Whether the finished model, which knows something, takes both sides' files for what the program gave it."""
    if again is None or again.val is None or again.train is None or knows_nothing(again, labels):
        return False
    of_val, of_train = (gained(*answers_of(one))[0] for one in (again.val, again.train))
    return abs(of_val.value) < LEAST_OWN and abs(of_train.value) < LEAST_APART


def used_to_another(again: AskedAgain | None) -> bool:
    """Whether the finished model is far worse on validation's files than on what the program makes of them."""
    return again is not None and again.val is not None and gained(*answers_of(again.val))[0].high < -USED_TO


def knows_nothing(again: AskedAgain | None, labels: IntArray) -> bool:
    """Whether the finished model answers validation by chance, however it is read: then it cannot tell two ways apart."""
    if again is None or again.val is None:
        return False
    return not any(above_chance(said, labels) for said in answers_of(again.val))


def answers_of(twice: TwiceAnswered) -> tuple[Answers, Answers]:
    return Answers(twice.right[0], twice.loss[0]), Answers(twice.right[1], twice.loss[1])


def odd_side(run: RunRecord, train: Side, val: Side) -> Literal["train", "val"]:
    """Which side is read unlike its files, where the two are read differently: in its colours, else in what is shown."""
    expected = expected_colours(run)
    if train.colours.plausible != val.colours.plausible:
        return "val" if train.colours.plausible else "train"
    if expected is not None and train.colours.steps_to(expected) > val.colours.steps_to(expected) + 1:
        return "train"
    if abs(train.bent - val.bent) > BENT:
        return "train" if train.bent > val.bent else "val"
    like_train = float(cosines(train.seen, train.sound).mean() / max(0.3, cosines(train.varied, train.sound).mean()))
    like_val = float(cosines(val.seen, val.sound).mean())
    return "train" if like_train < like_val - LESS_LIKE else "val"


def expected_colours(run: RunRecord) -> Colours | None:
    """What the published weights want; None where they say nothing, or a module around them prepares the images."""
    model = run.trained_model
    if model is None or not model.expected_whole or model.pretrained is False:
        return None
    mean, std = model.expected_mean, model.expected_std
    return Colours.normalised(mean, std) if mean is not None and std is not None and len(mean) == len(std) == 3 else None
