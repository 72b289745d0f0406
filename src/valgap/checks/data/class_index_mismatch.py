"""Training and validation give one class different indices.

What it looks for
    Class maps of the two data sets, side by side: a class name with two indices. Where the data sets keep no map, or equal ones,
    a renaming of the validation labels that makes the predictions right: it is fitted on one half of the validation images
    and must also hold on the other half.

Why it hurts validation
    The model answers in the indices of training. Every image of a shifted class counts as wrong although the answer is right.
    `ImageFolder` numbers the folders that it finds, so one class folder that is missing or added in val shifts all
    later ones.

What else looks like this
    A new head on good features answers each class with one of its own before it is trained, and a renaming fits that too: the
    training images must be answered well without one. A mismatch has a strong confusion matrix beside the diagonal. Scrambled
    labels (DAT113) cannot be renamed into place.

Remedy
    Use one class map, taken from train, for every split: pass `class_to_idx` of train, keep an empty folder for a class
    without validation images, or remap the targets by name.

Source
    pytorch-image-models issue 211, DeepForest pull request 1147, vision issue 714.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

from valgap.checks.shared.progress import beats_guess
from valgap.checks.shared.stage_faults import of_folders
from valgap.stats import best_label_permutation, right_when_renamed, wilson_interval
from valgap.types import (
    Case,
    Check,
    Clear,
    DatasetInfo,
    Evidence,
    Finding,
    IntArray,
    Intervention,
    NotApplicable,
    Pass,
    RunRecord,
    SampleTable,
    Untreatable,
    same_samples,
)

BoolArray = npt.NDArray[np.bool_]

# Without class maps, the renamed accuracy on the held-out half must beat the plain one beyond both 99.9 % intervals:
# under sound labels the two are equal, so this passes by chance less than once in a thousand runs.
LEVEL = 0.999
MIN_IMAGES = 40
# A class is renamed as a whole when so much of it is; what mixing and wrong labels leave of one is more.
WHOLE_CLASS = 0.9
# What a whole shift is taken to cost where the model answers at chance, and measured points mean nothing.
UNMEASURED_POINTS = 5.0


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Compare the maps by name; without maps, look for a renaming that holds on held-out images."""
    train, val = case.run.last_train, case.run.last_validation
    if train is None or val is None or not val.samples.labelled.any():
        return NotApplicable("a training pass and a validation pass with labels")
    first, second = class_map(case, train), class_map(case, val)
    if not (first and second and set(first) & set(second)):
        return by_renaming(case, val)
    outcome = by_name(first, second, val)
    if isinstance(outcome, Finding):
        return outcome
    renamed = by_renaming(case, val)  # equal maps say nothing of files that hold numbers
    return renamed if isinstance(renamed, Finding) else outcome


def class_map(case: Case, one: Pass) -> Mapping[str, int] | None:
    """Class name -> index of the pass's data set, as the program used it; None where it has no map."""
    dataset: DatasetInfo | None = case.run.datasets.get(one.dataset)
    if dataset is None or dataset.class_to_idx is None:
        return None
    used = used_indices(dataset, one.samples)
    return {name: used.get(index, index) for name, index in dataset.class_to_idx.items()}


def used_indices(dataset: DatasetInfo, samples: SampleTable) -> Mapping[int, int]:
    """Declared target -> the one that the program used instead, where it (``target_transform``) renames a whole class."""
    if dataset.targets is None or dataset.sample is None or len(dataset.targets) != len(dataset.sample):
        return {}
    known = samples.labelled & (samples.sample >= 0)
    order = np.argsort(dataset.sample, kind="stable")
    place = np.searchsorted(dataset.sample, samples.sample[known], sorter=order)
    found = place < len(order)
    rows = order[place[found]]
    found[found] = dataset.sample[rows] == samples.sample[known][found]
    declared = dataset.targets[order[place[found]]]
    seen = samples.target[known][found]
    used: dict[int, int] = {}
    for one in np.unique(declared):
        values, counts = np.unique(seen[declared == one], return_counts=True)
        if counts.max() >= WHOLE_CLASS * counts.sum():
            used[int(one)] = int(values[counts.argmax()])
    return used


def by_name(train: Mapping[str, int], val: Mapping[str, int], last: Pass) -> Finding | Clear:
    """Judge two class maps that share names."""
    shared = sorted(set(train) & set(val), key=lambda name: train[name])
    wrong = [name for name in shared if train[name] != val[name]]
    facts = Evidence("classes with another index in val", len(wrong), 0, "", len(shared))
    if not wrong:
        return Clear("train and val give every class the same index", (facts,))
    target, prediction = last.samples.target, last.samples.prediction
    renamed = remapped(target, {val[name]: train[name] for name in shared})
    keep = last.samples.labelled
    before = float((prediction == target)[keep].mean())
    after = float((prediction == renamed)[keep].mean())
    share = float(np.isin(target[keep], [val[name] for name in wrong]).mean())
    points = 100 * (after - before)
    facts_of_cost = [Evidence("val accuracy with labels remapped by name", after, before, "", int(keep.sum()))]
    if points < UNMEASURED_POINTS * share and wilson_interval(round(after * keep.sum()), int(keep.sum()))[0] <= 1 / len(train):
        points = UNMEASURED_POINTS * share
        facts_of_cost.append(Evidence("cost (the model has learnt too little to tell): assumed", points, 0.0, "points"))
    missing = sorted(set(train) - set(val)) + sorted(set(val) - set(train))
    return Finding(
        summary=f"{len(wrong)} of {len(shared)} classes have another index in val than in train"
        + (f" (only in one of them: {', '.join(missing[:3])})" if missing else ""),
        severity_points=points,
        confidence=0.99,
        evidence=(
            facts,
            *facts_of_cost,
            Evidence("share of val images with a shifted label", share, 0.0, "", int(keep.sum())),
        ),
        remedy="use train's class_to_idx for val too: remap val targets by class name, or keep an empty folder for each class",
        subjects=tuple(f"{name}: train {train[name]}, val {val[name]}" for name in wrong),
    )


def renamed_by(run: RunRecord) -> Literal["maps", "train", "val"]:
    """What numbers the classes of validation otherwise: the two class maps as they stand, or what is done to labels after."""
    sides = [(run.datasets.get(p.dataset), p.samples) for p in (run.last_train, run.last_validation) if p is not None]
    known = [(d, s) for d, s in sides if d is not None and d.class_to_idx is not None]
    if len(known) < 2:
        return "val"
    moved = [any(a != b for a, b in used_indices(d, s).items()) for d, s in known]
    return "val" if moved[1] else "train" if moved[0] else "maps"


def remapped(target: IntArray, mapping: Mapping[int, int]) -> IntArray:
    """Targets (N,) renamed by ``mapping``; -1 for indices that it does not name."""
    return np.array([mapping.get(int(t), -1) for t in target], np.int64)


def by_renaming(case: Case, last: Pass) -> Finding | Clear | NotApplicable:
    """Look for a renaming of targets, fitted on every other image of each class and judged on the rest."""
    keep = last.samples.labelled & (last.samples.prediction >= 0)
    target, prediction = last.samples.target[keep], last.samples.prediction[keep]
    if len(target) < MIN_IMAGES:
        return NotApplicable(f"class maps of both data sets, or {MIN_IMAGES} labelled validation images")
    classes = int(max(target.max(), prediction.max())) + 1
    held_out = right_when_renamed(target, prediction, classes)
    plain = prediction == target
    evidence = Evidence(
        "val accuracy under the best renaming, on held-out images",
        float(held_out.mean()),
        float(plain.mean()),
        "",
        len(target),
    )
    if not beyond(held_out, plain, LEVEL):
        return Clear("no renaming of the validation labels fits the predictions better", (evidence,))
    recalls = [float(held_out[target == c].mean()) for c in np.unique(target)]
    if np.median(recalls) <= 1 / classes:
        return NotApplicable("a model that tells most classes apart: this one answers with a few of them")
    if not training_agrees(case, plain):
        return NotApplicable("a model that answers its training images better than validation: this one is hardly trained")
    if right_again(case, last, plain):
        return Clear("the finished model, asked once more, gives the labels as they are", (evidence,))
    naming = best_label_permutation(target, prediction, classes)[0]
    return Finding(
        summary="the predictions fit the validation labels only after renaming the classes",
        severity_points=100 * float(held_out.mean() - plain.mean()),
        confidence=0.95,
        evidence=(evidence,),
        remedy="compare how train and val number their classes; use one class map for both",
        stage="forward" if training_is_renamed(case, naming) else of_folders(case),
    )


def beyond(some: BoolArray, others: BoolArray, level: float = 0.95) -> bool:
    """Whether more of some answers are right (n,) than of others (m,), beyond the intervals of both."""
    (low, _), (_, high) = (wilson_interval(int(right.sum()), len(right), level) for right in (some, others))
    return low > high


def asked_again(case: Case, name: str) -> SampleTable | None:
    """What the finished model said when it was asked once more; None where it was not."""
    return case.run.closing.rescores.get(name) if case.run.closing is not None else None


def right_again(case: Case, last: Pass, plain: BoolArray) -> bool:
    """Whether the finished model, asked about these images again, meets more of their labels than it did, beyond noise."""
    again = asked_again(case, "val_eval")
    if again is None:
        return False
    here, there = same_samples(last.samples, again)
    known = last.samples.target[here] >= 0
    right = again.prediction[there[known]] == last.samples.target[here[known]]
    return len(right) > 0 and beyond(right, plain, LEVEL)


def training_is_renamed(case: Case, mapping: IntArray) -> bool:
    """Whether the finished model answers its training images under other classes as well: then it is no matter of labels."""
    table = asked_again(case, "train_eval")
    if table is None or not table.answered:
        return False
    keep = table.labelled & (table.prediction >= 0) & (table.target < len(mapping))
    target, prediction = table.target[keep], table.prediction[keep]
    return beyond(mapping[target] == prediction, target == prediction, LEVEL)


def training_agrees(case: Case, plain: BoolArray) -> bool:
    """Whether training images are right, without a renaming, more often than validation images are, beyond noise."""
    last = case.run.last_train
    tables = (last.samples if last is not None else None, asked_again(case, "train_eval"))
    return any(beyond(table.correct, plain) for table in tables if table is not None and beats_guess(table))


def treat(case: Case, finding: Finding) -> Intervention | Untreatable:
    """Validation labels renamed to train's indices; the trained model stays as it is."""
    train, val = case.run.last_train, case.run.last_validation
    first = class_map(case, train) if train is not None else None
    second = class_map(case, val) if val is not None else None
    if not first or not second or all(first[n] == second[n] for n in set(first) & set(second)):
        return Untreatable("no class maps say how the classes are renamed, only that a renaming fits")
    mapping = {str(second[name]): first[name] for name in sorted(set(first) & set(second))}
    return Intervention("score_renamed", {"mapping": mapping})


CHECK = Check(
    code="DAT102", name="class_index_mismatch", stage="pair", detect=detect, doc=__doc__ or "", treat=treat, by_answers=True
)
