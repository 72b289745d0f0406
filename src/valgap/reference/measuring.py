"""The measurement: right answers by the argmax of each image's logits, counted over all images and divided once.

Every number that the program printed as the accuracy of one validation pass is held against it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from valgap.checks.shared.printed_accuracy import Told, other_series, other_truths, told
from valgap.reference.scoring import compare_scored
from valgap.stats import binomial_tail, paired_difference
from valgap.types import Compared, Evidence, Measured, OwnAnswers, Pass, RunRecord, same_samples

LEAST_POINTS = 3.0
# Own answers are judged on so many images, and where the loss is no chance: averages over views, over models go either way.
FEWEST_IMAGES = 40
BY_CHANCE = 1e-4
# Sound averages leave most answers as they are.
MUCH, BY_CHANCE_WHERE_MUCH_DIFFERS = 0.25, 0.02
SURE = 0.85
FEWEST = 2
# A run that was cut short on purpose prints once: then the one number must be this far off, in points.
ONE_ALONE = 10.0
# From so many numbers of one print on, what gives half of them or less gives them by chance; what is printed instead of the
# accuracy gives nearly all.
MANY, MOSTLY, NEARLY_ALL = 4, 0.5, 0.85


def compare(run: RunRecord) -> Compared:
    """Printed accuracies against recomputed ones."""
    passes = [p for p in run.of_phase("validation") if p.samples.answered]
    if not passes:
        return Compared("unknown", "", missing="a validation pass with labels and answers")
    own = _by_labels(run, passes[-1]) or _own_answers(passes)
    if own is not None:
        return own
    scored = compare_scored(run, passes)
    if scored is not None:
        return scored
    series = told(run, "accuracy")
    if not series:
        return Compared("unknown", "", missing="a printed validation accuracy")
    wrong: list[tuple[list[tuple[Told, Pass]], list[float]]] = []
    carried = False
    for numbers in series.values():
        hits = [any(t.states(p.samples.accuracy) for p in t.passes) for t in numbers]
        right = sum(hits)
        # A wrong number is the right one by chance now and then: of 100 images, once in ten or twenty times. What is carried
        # from one pass into the next is right in the first alone.
        carried = right == 1 and hits[0] and (len(numbers) > FEWEST or _carried(numbers))
        if right > MOSTLY * len(numbers) or (right and len(numbers) < MANY and not carried):
            return Compared("sound", "the printed validation accuracy is that of the logits", evidence=_facts(numbers))
        pairs = _not_explained(run, numbers[1:] if carried else numbers)
        if pairs:
            wrong.append((pairs, [100 * min((p.samples.accuracy - v for v, _ in t.readings), key=abs) for t, p in pairs]))
    # One number alone may be anything; what one print says of several passes is no accident.
    fewest, least = (1, ONE_ALONE) if run.shortened is not None else (FEWEST, LEAST_POINTS)
    wrong = [w for w in wrong if abs(np.mean(w[1])) >= least and len(w[0]) + carried >= fewest]
    if len(series) != 1 or not wrong:
        return Compared("unknown", "", missing="one printed number that can only be the validation accuracy")
    pairs, gaps = wrong[0]
    last, one = pairs[-1]
    printed = min((v for v, _ in last.readings), key=lambda v: abs(v - one.samples.accuracy))
    points = Measured(gaps[-1], min(gaps), max(gaps))  # of the last pass, and over all of them: nothing is estimated
    facts = _facts([t for t, _ in pairs])
    said = f"the script prints {printed:.1%} for validation; the argmax of its logits gives {one.samples.accuracy:.1%}"
    remedy = "compare logits.argmax(1) with the targets, over classes and not over the batch; count over all images, divide once"
    return Compared("at fault", said, points, None, SURE, facts, remedy)


def _by_labels(run: RunRecord, last: Pass) -> Compared | None:
    """At fault where validation's logits were made with the labels, and are others without them."""
    closing = run.closing
    plain = closing.rescores.get("val_eval") if closing is not None and "labels_given" in closing.numbers else None
    if plain is None:
        return None
    here, there = same_samples(last.samples, plain)
    value, low, high = (100 * v for v in paired_difference(last.samples.correct[here], plain.correct[there]))
    if abs(value) < LEAST_POINTS:
        return None
    mine, theirs = last.samples.correct[here].mean(), plain.correct[there].mean()
    said = f"at validation the network is given the labels with the images: {mine:.1%} are right with them, {theirs:.1%} without"
    facts = (Evidence("val accuracy of the logits made with the labels, and without", float(mine), float(theirs), "", len(here)),)
    remedy = "call the network without labels when it is evaluated: a margin or a mixture is for training"
    return Compared("at fault", said, Measured(value, low, high), None, SURE, facts, remedy)


def _own_answers(passes: list[Pass]) -> Compared | None:
    """At fault where the program's own answers, not those of the largest scores, are wrong far more often, in every pass."""
    seen = [p.own for p in passes if p.own is not None and p.own.images >= FEWEST_IMAGES]
    if not seen or any(_lost(o) < LEAST_POINTS for o in seen):
        return None
    last = seen[-1]
    chance = BY_CHANCE if last.differ < MUCH * last.images else BY_CHANCE_WHERE_MUCH_DIFFERS
    if binomial_tail(last.only_own, last.only_own + last.only_scores) > chance:
        return None
    error = 196 * np.sqrt(last.only_own + last.only_scores) / last.images
    points = Measured(_lost(last), _lost(last) - error, _lost(last) + error)
    mine, theirs = last.right / last.images, last.scores_right / last.images
    said = (
        f"the answers that the script counts are right for {mine:.1%} of the images; the argmax of its logits is for {theirs:.1%}"
    )
    facts = (
        Evidence("images for which the script's answer is not the argmax of the logits", last.differ, 0, "images", last.images),
        Evidence("right by the script's own answers, and by the argmax of the logits", mine, theirs, "", last.images),
    )
    remedy = "take the answers as logits.argmax(1); where several views of an image are averaged, average those of one image"
    return Compared("at fault", said, points, None, SURE, facts, remedy)


def _lost(own: OwnAnswers) -> float:
    """Points."""
    return 100 * (own.scores_right - own.right) / own.images


def _not_explained(run: RunRecord, numbers: list[Told]) -> list[tuple[Told, Pass]]:
    """Each number with the one pass that it can be of, where nothing else that is true gives nearly all the numbers."""
    if any(len(t.passes) != 1 for t in numbers):
        return []
    others = [*other_series(run, numbers).values(), *_parts(numbers)]
    if any(sum(t.states(v) for t, v in zip(numbers, values, strict=True)) > NEARLY_ALL * len(numbers) for values in others):
        return []
    if len(numbers) < MANY and any(t.equals(share) for t in numbers for share in other_truths(run, t)):
        return []
    return [(t, t.passes[0]) for t in numbers]


def _carried(numbers: list[Told]) -> bool:
    """Whether each number after the first counts all images of its pass and of those before."""
    tables = [t.passes[-1].samples for t in numbers]
    right, seen = (np.cumsum([count(t) for t in tables]) for count in (lambda t: t.correct.sum(), lambda t: len(t.correct)))
    return all(t.equals(float(r / n)) for t, r, n in zip(numbers[1:], right[1:], seen[1:], strict=True))


def _parts(numbers: list[Told]) -> Iterator[list[float]]:
    """What may be printed of a part of each pass: the accuracy of one class, or the mean over the classes."""
    tables = [t.passes[0].samples for t in numbers]
    kept = [(one.target[one.labelled], one.correct) for one in tables]
    classes = np.unique(np.concatenate([target for target, _ in kept]))
    by_class = [[float(r[t == c].mean()) if (t == c).any() else float("nan") for c in classes] for t, r in kept]
    yield [float(np.nanmean(row)) for row in by_class]
    for place in range(len(classes)):
        yield [row[place] for row in by_class]


def _facts(numbers: list[Told]) -> tuple[Evidence, ...]:
    return tuple(
        Evidence(f"printed: {t.number.line[:60]}", t.number.value, t.passes[-1].samples.accuracy, "", len(t.passes[-1].samples))
        for t in numbers[-3:]
    )
