"""The printed validation accuracy is not the accuracy of the predictions.

What it looks for
    Numbers that the script printed as an accuracy after a validation pass. They are compared with the accuracy that the
    recorded predictions give, and with known wrong formulas: the mean of batch means, division by the number of
    batches times the batch size, by the size of the training set, or an integer division that gives 0.

Why it hurts validation
    It does not: only the number is wrong. But models are chosen by it.

What else looks like this
    A running average during an epoch, a top-5 accuracy, a balanced accuracy: numbers that fit no formula are left alone.

Remedy
    Count right answers over all images, and divide once by the number of images.

Source
    pytorch_classifiers issue 5, chainer-cifar10 issue 1.
"""

from __future__ import annotations

import re

import numpy as np

from valgap.types import Case, Check, Clear, Evidence, Finding, NotApplicable, Pass, PrintedNumber, RunRecord

ACCURACY = re.compile(r"acc(?:uracy)?\b|\btop-?1\b|correct", re.IGNORECASE)
NOT_VALIDATION = re.compile(r"train|best|balanced|learning", re.IGNORECASE)
OTHER_METRIC = re.compile(r"top-?[2-9]|balanced|macro", re.IGNORECASE)
# A deviation below this many points is explained, not reported.
NOTABLE_POINTS = 0.5
MIN_FITS = 1


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Match printed accuracies with the right and the wrong formulas."""
    validations = {p.index: p for p in case.run.of_phase("validation") if p.samples.labelled.any()}
    if not validations:
        return NotApplicable("a labelled validation pass")
    printed = [n for n in case.run.printed if n.after_pass in validations and is_validation_accuracy(n)]
    if not printed:
        return NotApplicable("a printed validation accuracy")
    wrong: list[tuple[str, float, float]] = []
    right = 0
    for number in printed:
        one = validations[number.after_pass]
        value, tolerance = as_fraction(number)
        if abs(value - one.samples.accuracy) <= tolerance:
            right += 1
            continue
        for name, other in wrong_accuracies(case.run, one).items():
            if abs(value - other) <= tolerance and abs(other - one.samples.accuracy) > tolerance:
                wrong.append((name, value, one.samples.accuracy))
                break
    facts = (Evidence("printed accuracies that are right", right, len(printed), "", len(printed)),)
    if right >= len(wrong) or len(wrong) < MIN_FITS:
        return Clear("no printed validation accuracy fits a wrong formula", facts)
    name, value, truth = wrong[-1]
    notable = abs(value - truth) * 100 >= NOTABLE_POINTS
    return Finding(
        summary=f"the printed accuracy {value:.4g} is {name}; the predictions give {truth:.4g}",
        severity_points=100 * (truth - value),
        confidence=0.85 if notable else 0.4,
        evidence=(Evidence("printed validation accuracy", value, truth, "", len(validations)), *facts),
        remedy="sum the right answers of all batches and divide once by the number of images",
    )


def is_validation_accuracy(number: PrintedNumber) -> bool:
    """Whether the words before the number call it an accuracy, and not one of training."""
    named = bool(ACCURACY.search(number.label)) and not NOT_VALIDATION.search(number.label)
    return named and not OTHER_METRIC.search(number.line)


def as_fraction(number: PrintedNumber) -> tuple[float, float]:
    """(value as a fraction, half a unit of its last printed digit): percent is told by a value above 1."""
    text = next((t for t in re.findall(r"\d+\.?\d*", number.line) if abs(float(t) - abs(number.value)) < 1e-9), "")
    digits = len(text.partition(".")[2])
    half = 0.5 * 10.0**-digits
    percent = number.value > 1 or re.search(re.escape(text) + r"\s*%", number.line) is not None
    value, half = (number.value / 100, half / 100) if percent else (number.value, half)
    return value, half + 1e-6


def wrong_accuracies(run: RunRecord, one: Pass) -> dict[str, float]:
    """What known wrong formulas give for a pass, as fractions."""
    right = np.asarray(one.samples.prediction == one.samples.target)
    batches = np.unique(one.samples.batch)
    means = [float(right[one.samples.batch == b].mean()) for b in batches]
    found = {"a mean of batch means": float(np.mean(means)), "cut to 0 by an integer division": 0.0}
    loader = run.loaders.get(one.loader)
    if loader is not None and loader.batch_size > 0:
        found["divided by batches x batch size"] = float(right.sum() / (len(batches) * loader.batch_size))
    train = run.last_train
    if train is not None and len(train.samples):
        found["divided by the size of the training set"] = float(right.sum() / len(train.samples))
    return found


CHECK = Check(code="EVA503", name="miscomputed_metric", detect=detect, doc=__doc__ or "")
