"""The same image in training and in validation.

What it looks for
    Validation images that are also training images: the same file in both, or files with the same bytes under other
    names. Near duplicates are not looked for yet.

Why it hurts validation
    A leaked image is answered from memory, so validation looks better than it is, and model selection prefers memorising.
    The points of this cause are negative: the accuracy without the twins, minus the reported one.

What else looks like this
    Validation that runs over the training set itself (EVA508) is named there. In cross-validation the same image trains
    in one fold and validates in another; only the data sets of the same model are compared.

Remedy
    Remove the twins from one side, and split by original, patient, scene or burst rather than by file.

Source
    nutrify issue 53 (695 of 25,000 images); Barz and Denzler 2020 (duplicates in CIFAR).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from valgap.stats import wilson_interval
from valgap.types import Case, Check, Clear, Evidence, Finding, IntArray, Intervention, NotApplicable, Pass

# When nearly every validation sample is a training sample under the same name, the wrong data were evaluated (EVA508).
SAME_DATA_SHARE = 0.9
EXACT = ("same_file", "same_bytes", "same_pixels")


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """List the twins and compare the accuracy with and without them."""
    train, val = case.run.last_train, case.run.last_validation
    if train is None or val is None:
        return NotApplicable("a training pass and a validation pass")
    own = known_ids(val.samples.sample)
    if len(own) == 0 or len(known_ids(train.samples.sample)) == 0:
        return NotApplicable("the identity of the samples (paths or indices)")
    same = np.isin(own, train.samples.sample)
    if same.mean() >= SAME_DATA_SHARE:
        return NotApplicable("validation data other than the training data (see EVA508)")
    closing = case.run.closing
    exact = [t for t in (closing.twins or ()) if t.kind in EXACT] if closing is not None else []
    twins = set(own[same].tolist()) | {t.validation for t in exact}
    twins &= set(own.tolist())
    if not twins and (closing is None or closing.twins is None):
        return NotApplicable("a comparison of file contents (closing measurements)")
    evidence = [Evidence("validation images that are also training images", len(twins), 0, "images", len(own))]
    if not twins:
        return Clear("no validation image is a copy of a training image", tuple(evidence))
    points = inflation(val, twins, evidence)
    partner = {t.validation: t.train for t in exact}
    names = case.run.sample_names
    return Finding(
        summary=f"{len(twins)} of {len(own)} validation images are copies of training images",
        severity_points=points,
        confidence=0.99,
        evidence=tuple(evidence),
        remedy="remove these images from train or from val and split by original; then judge the accuracy without them",
        subjects=tuple(f"{names[i]} = {names[partner[i]]}" if i in partner else names[i] for i in sorted(twins)),
    )


def known_ids(sample: IntArray) -> npt.NDArray[np.int64]:
    """The distinct known sample ids, sorted."""
    return np.unique(sample[sample >= 0]).astype(np.int64)


def inflation(val: Pass, twins: set[int], evidence: list[Evidence]) -> float:
    """Points by which the accuracy changes without the twins (negative: it is too good); adds the evidence."""
    table = val.samples
    keep = table.labelled & ~np.isin(table.sample, sorted(twins))
    if not keep.any():
        evidence.append(Evidence("validation images left without the copies", 0, len(table), "images"))
        # Nothing measures the true accuracy then; half of the distance to chance is no claim, so no points are named.
        return 0.0
    right = table.prediction[keep] == table.target[keep]
    low, high = wilson_interval(int(right.sum()), len(right))
    evidence.append(Evidence("val accuracy without the copies", float(right.mean()), table.accuracy, "", len(right), low, high))
    return 100 * (float(right.mean()) - table.accuracy)


def treat(case: Case, finding: Finding) -> Intervention:
    """The copies left out of the validation accuracy; the trained model stays as it is."""
    return Intervention("score_without", {"names": [s.split(" = ")[0] for s in finding.subjects]})


CHECK = Check(code="DAT101", name="train_val_overlap", detect=detect, doc=__doc__ or "", treat=treat)
