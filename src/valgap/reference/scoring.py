"""The answers that a program scores as arrays after its passes, held against what the record saw it answer.

A pass, or the last ones over several data sets (folds), is known by its answers: then the classes that the program takes for true
can be held against those of the same images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from valgap.stats import paired_difference
from valgap.types import Compared, Evidence, IntArray, Measured, Pass, RunRecord, SampleTable, Scored

Truths = npt.NDArray[np.bool_]
# Answers, or classes, are those of a pass where nearly all agree: some programs leave a last batch out, or round.
ALIKE = 0.98
LEAST_POINTS = 3.0
FEWEST_IMAGES = 20
SURE = 0.9


def compare_scored(run: RunRecord, passes: Sequence[Pass]) -> Compared | None:
    """What the last scores that the program took of a known pass say; None where none is known."""
    for scored in reversed(run.scored):
        for parts in _candidates(scored, passes):
            found = _judged(scored, [p.samples for p in parts])
            if found is not None:
                return found
    return None


def _candidates(scored: Scored, passes: Sequence[Pass]) -> Iterator[list[Pass]]:
    """Passes, or the last of each data set together, that had as many images before the scores were taken."""
    n = len(scored.true)
    before = [p for p in passes if p.index <= scored.after_pass]
    yield from ([p] for p in reversed(before) if len(p.samples) == n)
    last = list({p.dataset: p for p in before}.values())
    for first in range(len(last) - 1):
        if sum(len(p.samples) for p in last[first:]) == n:
            yield last[first:]


def _judged(scored: Scored, tables: Sequence[SampleTable]) -> Compared | None:
    """The scores against these tables, one after the other; None where they are not of their answers."""
    target, answers = (np.concatenate([getattr(t, name) for t in tables]) for name in ("target", "prediction"))
    known = (target >= 0) & (answers >= 0)
    if known.sum() < FEWEST_IMAGES:
        return None
    true, predicted = scored.true[known], scored.predicted[known]
    target, answers = target[known], answers[known]
    if _alike(predicted, answers):
        return _against(true, target, true == predicted, target == answers)
    if _alike(true, answers):  # the arguments the other way round
        return _against(predicted, target, true == predicted, target == answers)
    return None


def _against(used: IntArray, target: IntArray, right: Truths, truly: Truths) -> Compared:
    """The classes that the program scored its answers against, and those of the images."""
    n, other = len(used), int((used != target).sum())
    mine, theirs = float(right.mean()), float(truly.mean())
    facts = (
        Evidence("images whose class in the script's score is not that of their label", other, 0, "images", n),
        Evidence("accuracy of the answers as the script scores them, and by the labels of their images", mine, theirs, "", n),
    )
    value, low, high = (100 * v for v in paired_difference(right, truly))
    if _alike(used, target) or abs(value) < LEAST_POINTS or low <= 0 <= high:
        return Compared("sound", "what the script scores are its answers and the labels of the same images", evidence=facts)
    same = np.array_equal(np.sort(used), np.sort(target))
    how = "the same labels in another order" if same else "other classes than the images have"
    said = f"the script scores its answers against {how}: {mine:.1%} are right so, {theirs:.1%} by the labels of their images"
    remedy = "keep answers and labels together: do not shuffle validation, or collect the labels with the answers"
    return Compared("at fault", said, Measured(value, low, high), None, SURE, facts, remedy)


def _alike(one: IntArray, other: IntArray) -> bool:
    return float((one == other).mean()) >= ALIKE
