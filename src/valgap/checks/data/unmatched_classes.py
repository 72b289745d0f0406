"""Classes that only one of training and validation has.

What it looks for
    Class names of val that train does not know, validation labels that no training sample has, and validation labels that
    are all one constant (a data set without labels often gives -1 or 0).

Why it hurts validation
    An image of a class that training never saw cannot be answered rightly. A class without validation images is not
    measured at all.

What else looks like this
    A few training images of a thousand classes lack many of them by chance: what a random split of as many images would
    leave out is no fault. A run that saw a part of its data says nothing. A missing folder that also shifts the other
    indices is class_index_mismatch (DAT102), which is named first.

Remedy
    Give both splits the same classes: move images, or leave the class out of both.

Source
    pytorch-image-models issue 211, webvision benchmarks issue 5, examples issue 550, NeRN issue 29.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.special import bdtrc

from valgap.checks.shared.seen_part import labels_of, unseen
from valgap.checks.shared.stage_faults import of_pairing
from valgap.types import (
    Case,
    Check,
    Clear,
    Evidence,
    Finding,
    IntArray,
    Intervention,
    NotApplicable,
    Pass,
    RunRecord,
    Untreatable,
)

# Labels that are all equal tell of a missing label only when there are enough of them: with two equally likely classes,
# twenty equal labels come once in half a million.
MIN_CONSTANT = 20
# Level at which validation holds more images of classes that train lacks than a random split of train's size would.
P_VALUE = 0.001


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Compare class names and labels of the two phases."""
    train, val = case.run.last_train, case.run.last_validation
    if train is None or val is None or len(val.samples) == 0:
        return NotApplicable("a training pass and a validation pass")
    names = [case.run.datasets[p.dataset].class_to_idx if p.dataset in case.run.datasets else None for p in (train, val)]
    if names[0] and names[1]:
        held = _held(case.run, train, val)
        nameless = np.setdiff1d(held, list(names[0].values()))  # held, but never drawn: folders name only what was drawn
        foreign = sorted(n for n in set(names[1]) - set(names[0]) if names[1][n] not in nameless)
        absent = sorted(set(names[0]) - set(names[1]))
        index = np.array([names[1][n] for n in foreign])
        hit = np.isin(val.samples.target, index) if len(foreign) else np.zeros(len(val.samples), bool)
    else:
        if not val.samples.labelled.any():
            return _unlabelled(val)
        both = labels_of(case.run, train, val)
        if both is None:
            return NotApplicable(unseen(case.run, train, val))
        ours, theirs = both
        if len(ours) == 0:
            return NotApplicable("labels of the training samples")
        seen = np.union1d(np.union1d(ours, _seen(case)), _held(case.run, train, val))
        foreign = [str(c) for c in np.setdiff1d(theirs, seen)]
        absent = [str(c) for c in np.setdiff1d(seen, theirs)]
        hit = ~np.isin(theirs, seen)
        if foreign and by_chance(ours, hit):
            share = Evidence("validation images of classes that train lacks", float(hit.mean()), None, "", len(theirs))
            return Clear("train lacks no more classes than a random split of so few images would", (share,))
    found = _judge(foreign, absent, float(hit.mean()), len(val.samples))
    # Files of these classes may be there, under other targets.
    return replace(found, stage=of_pairing(case)) if isinstance(found, Finding) and foreign else found


def by_chance(train: IntArray, hit: npt.NDArray[np.bool_]) -> bool:
    """Whether a random split explains so many validation images (``hit``) of classes that train lacks.

    The share of new images whose class was never drawn is about that of the classes drawn just once (Good 1953).
    """
    expected = min(0.99, (float((np.bincount(train) == 1).sum()) + 1) / (len(train) + 1))
    return bool(bdtrc(int(hit.sum()) - 1, len(hit), expected) > P_VALUE) if hit.any() else True


def _seen(case: Case) -> IntArray:
    passes = case.run.of_phase("train")
    last = passes[-1].loss
    # An earlier task of the same program, with another number of classes, names other things by the same numbers.
    same = [p for p in passes if last is None or p.loss is None or p.loss.num_outputs == last.num_outputs]
    targets = np.concatenate([p.samples.target for p in same])
    return np.unique(targets[targets >= 0])


def _held(run: RunRecord, train: Pass, val: Pass) -> IntArray:
    """Classes that the training set holds, drawn or not; none where validation is a part of the same data set."""
    info = run.datasets.get(train.dataset) if train.dataset != val.dataset else None
    targets = info.targets if info is not None else None
    return np.unique(targets[targets >= 0]) if targets is not None else np.zeros(0, np.int64)


def _unlabelled(val: Pass) -> Finding | NotApplicable:
    n = len(val.samples)
    # A loop over files knows the class by its own variables, which nobody sees.
    if val.loader < 0 or n < MIN_CONSTANT:
        return NotApplicable("validation labels: none was seen")
    return Finding(
        summary="the validation set carries no class labels",
        severity_points=0.0,
        confidence=0.4,  # the program may know them from elsewhere
        evidence=(Evidence("validation images with a class label", 0, n, "images", n),),
        remedy="use a validation set with labels; images of ImageFolder must lie in class folders",
    )


def _judge(foreign: list[str], absent: list[str], share: float, n: int) -> Finding | Clear:
    facts = (
        Evidence("classes in val that train never saw", len(foreign), 0, "classes"),
        Evidence("validation images of such a class", share, 0.0, "", n),
        Evidence("classes of train without a validation image", len(absent), 0, "classes"),
    )
    if foreign:
        return Finding(
            summary=f"{len(foreign)} classes of val never occur in train: {', '.join(foreign[:3])}",
            severity_points=100 * share,
            confidence=0.97,
            evidence=facts,
            remedy="add training images of these classes or take them out of val",
            subjects=tuple(foreign),
        )
    if absent:
        return Finding(
            summary=f"{len(absent)} classes of train have no validation image: {', '.join(absent[:3])}",
            severity_points=0.0,
            confidence=0.4,
            evidence=facts,
            remedy="put some images of each class into val: these classes are not measured",
            subjects=tuple(absent),
        )
    return Clear("train and val have the same classes", facts)


def treat(case: Case, finding: Finding) -> Intervention | Untreatable:
    """Classes that train never saw left out of the validation accuracy."""
    train, val = case.run.last_train, case.run.last_validation
    first = case.run.datasets[train.dataset].class_to_idx if train is not None and train.dataset in case.run.datasets else None
    second = case.run.datasets[val.dataset].class_to_idx if val is not None and val.dataset in case.run.datasets else None
    if not first or not second or val is None:
        return Untreatable("the class maps are not known")
    foreign = [second[name] for name in set(second) - set(first)]
    hit = np.isin(val.samples.target, foreign) & (val.samples.sample >= 0)
    return Intervention("score_without", {"names": [case.run.sample_names[i] for i in val.samples.sample[hit]]})


CHECK = Check(code="DAT111", name="unmatched_classes", stage="files", detect=detect, doc=__doc__ or "", treat=treat)
