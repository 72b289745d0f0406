"""The last validation pass class by class: confusion, recall, and how far its probabilities can be believed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from valgap.stats import confusion_matrix, wilson_interval
from valgap.types import Accuracy, Calibration, CalibrationBin, ClassResult, Confusion, IntArray, RunRecord, SampleTable

MAX_CLASSES = 20  # rows of a confusion matrix that a screen holds
BINS = 10


def class_names(run: RunRecord, number: int) -> list[str]:
    """``number`` names by index, from the training data's map where it has one, else from validation's."""
    names = [f"class {i}" for i in range(number)]
    for one in (run.last_validation, run.last_train):  # the training data's names come last and count
        data = run.datasets.get(one.dataset) if one is not None else None
        for name, index in (data.class_to_idx or {}).items() if data is not None else ():
            if 0 <= index < number:
                names[index] = name
    return names


def confusion(run: RunRecord) -> Confusion | None:
    """Counts of the last validation pass; with more than `MAX_CLASSES`, those with the most wrong answers."""
    counts, names = _counts(run)
    if counts is None:
        return None
    wrong = counts.sum(1) + counts.sum(0) - 2 * np.diag(counts)
    used = np.flatnonzero(counts.sum(1) + counts.sum(0))
    shown = used if len(used) <= MAX_CLASSES else np.sort(used[np.argsort(-wrong[used], kind="stable")[:MAX_CLASSES]])
    return Confusion(tuple(names[i] for i in shown), counts[np.ix_(shown, shown)], len(used) - len(shown))


def class_results(run: RunRecord) -> tuple[ClassResult, ...]:
    """Recall of each class with its interval, the worst first; classes without validation images are left out."""
    counts, names = _counts(run)
    if counts is None:
        return ()
    rows = []
    for i in np.flatnonzero(counts.sum(1)):
        n, right = int(counts[i].sum()), int(counts[i, i])
        rows.append(ClassResult(names[i], Accuracy(right / n, *wilson_interval(right, n), n), int(counts[:, i].sum())))
    return tuple(sorted(rows, key=lambda r: r.recall.value))


def answer_probabilities(table: SampleTable) -> npt.NDArray[np.float64]:
    """The probability (0..1) of the answer given, per labelled sample; nan where the loss is not known.

    A wrong answer's probability is the target's times exp(-margin): the margin is the distance of their logits.
    """
    keep = table.labelled
    loss, margin = table.loss[keep].astype(np.float64), table.margin[keep].astype(np.float64)
    return np.asarray(np.exp(-(loss + np.minimum(margin, 0.0))).clip(0.0, 1.0))


def calibration(run: RunRecord) -> Calibration | None:
    """Mean confidence against accuracy in ten equal steps of confidence; None without probabilities.

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks, section 2.
    """
    last = run.last_validation
    if last is None or not last.samples.labelled.any():
        return None
    confidence, right = answer_probabilities(last.samples), last.samples.correct
    known = np.isfinite(confidence)
    if not known.any():
        return None
    confidence, right = confidence[known], right[known]
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    bins, error = [], 0.0
    for i in range(BINS):
        inside = place == i
        if inside.any():
            mean, share = float(confidence[inside].mean()), float(right[inside].mean())
            bins.append(CalibrationBin(i / BINS, (i + 1) / BINS, int(inside.sum()), mean, share))
            error += float(inside.mean()) * abs(mean - share)
    return Calibration(tuple(bins), error)


def _counts(run: RunRecord) -> tuple[IntArray | None, list[str]]:
    last = run.last_validation
    if last is None or not last.samples.labelled.any():
        return None, []
    table = last.samples
    number = int(max(table.target.max(), table.prediction.max())) + 1
    return confusion_matrix(table.target, table.prediction, number), class_names(run, number)
