"""The printed validation accuracy is not the accuracy of the predictions.

What it looks for
    Numbers that the script printed as the accuracy of one recorded validation pass: in a sentence, a meter, a table, a
    dictionary, a logger's line or the last state of a progress bar. They are compared with the accuracy that the recorded
    predictions give, and with known wrong formulas: the mean of batch means, division by the number of batches times the
    batch size, by the size of the data set or of the training set, right answers that are counted on from pass to pass, or
    an integer division that gives 0. A formula is claimed where it gives every number of one print statement, and nothing
    else does: no other pass, no re-score, no training, no best pass so far. Where no formula
    fits, but every number of the only print is far from its pass's accuracy and equal to nothing else that is known, that is
    told as it is: such as an argmax over the batch.

Why it hurts validation
    It does not: only the number is wrong. But models are chosen by it.

What else looks like this
    The accuracy of one class or of a batch, a running meter, a top-5 accuracy, a balanced accuracy, the best pass so far,
    an averaged model or a teacher, a training accuracy: they are told by their words, by where they stand and by what they
    equal, and are left alone. So is a number that could belong to several passes, or is rounded too far to tell.

Remedy
    Count right answers over all images, and divide once by the number of images.

Source
    pytorch_classifiers issue 5, chainer-cifar10 issue 1.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from valgap.checks.shared.printed_accuracy import Told, last_batch, mean_of_batches, other_series, other_truths, told
from valgap.checks.shared.stage_faults import outcome
from valgap.types import Case, Check, Clear, Evidence, Finding, NotApplicable, Pass, RunRecord

# A deviation below this many points is explained, not reported.
NOTABLE_POINTS = 0.5
# Numbers of one print that need not fit, for a pass that was printed in another way.
STRAY_SHARE = 0.1
# Accuracies of one program lie within about this range: by it and their decimals, numbers that mean something else fit by chance.
USUAL_RANGE = 0.2
MAX_CHANCE = 0.01
# An integer division: so many zeros in a row, with an accuracy and a number of right answers well above 0.
MIN_ZEROS, ZERO_ACCURACY, ZERO_RIGHT = 2, 0.05, 5
CUT = "cut to 0 by an integer division"


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Match printed accuracies with the right and the wrong formulas."""
    run = case.run
    if not any(p.samples.labelled.any() for p in run.of_phase("validation")):
        return NotApplicable("a labelled validation pass")
    series = told(run, "accuracy")
    named = sum(n.metric == "accuracy" for n in run.printed)
    if not series:
        return NotApplicable(f"a printed validation accuracy (printed numbers: {len(run.printed)}, accuracies: {named})")
    numbers = [t for members in series.values() for t in members]
    right = sum(any(t.states(p.samples.accuracy) for p in t.passes) for t in numbers)
    facts = (
        Evidence("printed accuracies that are right", right, len(numbers), "", len(numbers)),
        Evidence("printed accuracies that are of no single validation pass", named - len(numbers), None, "", named),
        *loss_facts(run),
    )
    claims = [claim for members in series.values() if (claim := claimed(run, members)) is not None]
    unlike = outcome(case, "measure")
    if not claims and isinstance(unlike, Finding):
        return replace(unlike, evidence=(*unlike.evidence, *facts))
    if not claims or right >= max(c[2] for c in claims):
        return Clear("no printed validation accuracy fits a wrong formula", facts)
    name, last, fits = max(claims, key=lambda c: c[2])
    truth = last[1].samples.accuracy
    value = min((v for v, _ in last[0].readings), key=lambda v: abs(v - wrong_accuracies(run, last[1])[name]))
    notable = abs(value - truth) * 100 >= NOTABLE_POINTS
    return Finding(
        summary=f"the printed accuracy {value:.4g} is {name}; the predictions give {truth:.4g}",
        severity_points=100 * (truth - value),
        confidence=0.85 if notable else 0.4,
        evidence=(
            Evidence("printed validation accuracy", value, truth, "", len(last[1].samples)),
            Evidence("printed accuracies that the wrong formula gives", fits, None, "", len(numbers)),
            *facts,
        ),
        remedy="sum the right answers of all batches and divide once by the number of images",
    )


def claimed(run: RunRecord, members: list[Told]) -> tuple[str, tuple[Told, Pass], int] | None:
    """(the wrong formula that gives all numbers of a print, its number farthest off with its pass, how many); None for none."""
    if len({len(t.passes) for t in members}) != 1:
        return None
    if any(_fits(members, values) for values in other_series(run, members).values()):
        return None
    found: dict[str, tuple[tuple[Told, Pass], int]] = {}
    for place in range(len(members[0].passes)):
        pairs = [(t, t.passes[place]) for t in members]
        if _fits(members, [p.samples.accuracy for _, p in pairs]):
            return None
        tables = [wrong_accuracies(run, p) for _, p in pairs]
        for name in tables[-1]:
            values = [table.get(name, math.nan) for table in tables]
            told_apart = [
                pair for pair, value in zip(pairs, values, strict=True)
                if pair[0].equals(value) and not any(pair[0].states(v) for v in other_truths(run, pair[0]))
            ]  # fmt: skip
            if not told_apart or not _fits(members, values):
                continue
            if _zeros(told_apart) if name == CUT else _chance(told_apart, len(tables[-1])) <= MAX_CHANCE:
                found.setdefault(name, (max(told_apart, key=_deviation), len(told_apart)))
    if not found:
        return None
    name, (last, fits) = next(iter(found.items()))
    return name, last, fits


def _deviation(pair: tuple[Told, Pass]) -> float:
    """How far a printed number is from its pass's accuracy, as a share."""
    return min(abs(value - pair[1].samples.accuracy) for value, _ in pair[0].readings)


def _fits(members: list[Told], values: list[float]) -> bool:
    """Whether the values are the numbers, but for a stray one in ten."""
    strays = sum(not t.equals(v) for t, v in zip(members, values, strict=True))
    return strays <= STRAY_SHARE * len(members)


def _chance(pairs: list[tuple[Told, Pass]], formulas: int) -> float:
    """How likely numbers so finely printed would fit one of the formulas by chance."""
    return math.prod(min(1.0, 2 * formulas * max(tol for _, tol in t.readings) / USUAL_RANGE) for t, _ in pairs)


def _zeros(pairs: list[tuple[Told, Pass]]) -> bool:
    """Whether exact zeros stand for passes with many right answers."""
    well_above = [p for _, p in pairs if p.samples.accuracy >= ZERO_ACCURACY and p.samples.correct.sum() >= ZERO_RIGHT]
    return len(well_above) == len(pairs) >= MIN_ZEROS and all(t.number.value == 0 for t, _ in pairs)


def wrong_accuracies(run: RunRecord, one: Pass) -> dict[str, float]:
    """What known wrong formulas give for a pass, as fractions."""
    right, seen = int(one.samples.correct.sum()), len(one.samples)
    found = {"a mean of batch means": mean_of_batches(one), CUT: 0.0}
    loader, dataset = run.loaders.get(one.loader), run.datasets.get(one.dataset)
    if loader is not None and loader.batch_size > 0:
        found["divided by batches x batch size"] = right / (len(np.unique(one.samples.batch)) * loader.batch_size)
    cut = run.shortened is not None and run.shortened.cut(one.index)
    if dataset is not None and dataset.size > 0 and dataset.size != seen and not cut:
        found["divided by the size of the data set, of which it saw a part"] = right / dataset.size
    train = next((p for p in reversed(run.of_phase("train")) if p.index < one.index), run.last_train)
    if train is not None and len(train.samples):
        found["divided by the size of the training set"] = right / _all_of(run, train)
    before = [p for p in run.of_phase("validation") if p.index < one.index and p.dataset == one.dataset]
    counted = sum(int(p.samples.correct.sum()) for p in before)
    found["counted on from earlier passes, without a reset"] = (counted + right) / seen
    found["a mean over this pass and all before it"] = (counted + right) / (sum(len(p.samples) for p in before) + seen)
    if (last := last_batch(one)) > 0:
        found["that of the last batch alone"] = last
    return found


def _all_of(run: RunRecord, train: Pass) -> int:
    """Images of a training pass; of its whole set, where it was cut short on purpose."""
    dataset = run.datasets.get(train.dataset)
    cut = run.shortened is not None and run.shortened.cut(train.index)
    return dataset.size if cut and dataset is not None and dataset.size > 0 else len(train.samples)


def loss_facts(run: RunRecord) -> tuple[Evidence, ...]:
    """How many printed validation losses are the mean over images, and how many a mean of batch means."""
    counts = [0, 0, 0]
    for members in told(run, "loss").values():
        for one in members:
            last = one.passes[-1].samples
            loss, batch = last.loss[last.labelled], last.batch[last.labelled]
            means = (float(loss.mean()), float(np.mean([loss[batch == b].mean() for b in np.unique(batch)])))
            near = [abs(one.number.value - m) <= one.half + 1e-4 * abs(m) for m in means]
            counts = [counts[0] + 1, counts[1] + near[0], counts[2] + (near[1] and not near[0])]
    if not counts[0]:
        return ()
    return (
        Evidence("printed validation losses that are the mean over images", counts[1], None, "", counts[0]),
        Evidence("printed validation losses that are a mean of batch means", counts[2], None, "", counts[0]),
    )


CHECK = Check(code="EVA503", name="miscomputed_metric", stage="measure", detect=detect, doc=__doc__ or "")
