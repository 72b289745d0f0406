"""The same image in training and in validation.

What it looks for
    Validation images that are also training images: the same file in both, files with the same bytes or pixels under other
    names, and near duplicates: resized, re-encoded, cropped, mirrored, brightened, turned by a few degrees, framed. A near
    duplicate is a neighbour by the features of a pretrained backbone whose picture agrees after alignment. File names
    that differ in a counter only and lie on both sides are counted as evidence.

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

import re

import numpy as np
import numpy.typing as npt

from valgap.checks.shared.images import needed
from valgap.stats import wilson_interval
from valgap.types import Case, CaseImages, Check, Clear, Evidence, Finding, IntArray, Intervention, NotApplicable, Pass

# When nearly every validation sample is a training sample under the same name, the wrong data were evaluated.
SAME_DATA_SHARE = 0.9
# So many images beside the copies say what the accuracy is without them.
FEWEST = 20
REMEDY = "remove these images from train or from val and split by original; then judge the accuracy without them"
EXACT = ("same_file", "same_bytes", "same_pixels")


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """List the twins and compare the accuracy with and without them."""
    train, val = case.run.last_train, case.run.last_validation
    if train is None or val is None:
        alone = case.images is not None or (case.run.path and not case.run.passes)
        return from_files(case) if alone else NotApplicable("a training and a validation pass")
    own = known_ids(val.samples.sample)
    if len(own) == 0 or len(known_ids(train.samples.sample)) == 0:
        return NotApplicable("the identity of the samples (paths or indices)")
    same = np.isin(own, train.samples.sample)
    if same.mean() >= SAME_DATA_SHARE:
        return NotApplicable("validation data other than the training data")
    closing = case.run.closing
    # Two samplers may share the files of one folder: a file that training never draws is no training image.
    drawn = {s for p in case.run.of_phase("train") for s in p.samples.sample.tolist()}
    whole = train.complete and bool((train.samples.sample >= 0).all())
    told = [t for t in (closing.twins or ()) if t.kind in EXACT] if closing is not None else []
    partner = {t.validation: t.train for t in told if t.train in drawn or (not whole and t.train != t.validation)}
    near = {v: t for t, v in spanning(case.images, case.run.sample_names) if v not in partner}
    partner |= near
    twins = (set(own[same].tolist()) | set(partner)) & set(own.tolist())
    if not twins and (closing is None or closing.twins is None) and case.images is None:
        return NotApplicable("a comparison of file contents (closing measurements)")
    evidence = [Evidence("validation images that are also training images", len(twins), 0, "images", len(own))]
    if case.images is not None:
        evidence.append(Evidence("of these, found by comparing pictures", len(near), 0, "images"))
    if not twins:
        return Clear("no validation image is a copy of a training image", tuple(evidence))
    points = inflation(case, val, twins, evidence)
    names = case.run.sample_names
    return Finding(
        summary=f"{len(twins)} of {len(own)} validation images are copies of training images",
        severity_points=points,
        confidence=0.99 if len(twins) > len(near) else near_confidence(len(near), len(own)),
        evidence=tuple(evidence),
        remedy=REMEDY,
        subjects=tuple(f"{names[i]} = {names[partner[i]]}" if i in partner else names[i] for i in sorted(twins)),
    )


def spanning(images: CaseImages | None, names: tuple[str, ...]) -> list[tuple[int, int]]:
    """(train, validation) sample ids of every pair of pictures across the split."""
    if images is None or images.pairs is None:
        return []
    ids = {name: i for i, name in enumerate(names)}
    rows = images.rows
    pairs = [(rows.names[p.first], rows.names[p.second]) for p in images.pairs if is_spanning(images, p.first, p.second)]
    return [(ids[a], ids[b]) for a, b in pairs if a in ids and b in ids]


def is_spanning(images: CaseImages, first: int, second: int) -> bool:
    """Whether the first lies in train and the second in val."""
    return not images.rows.is_val[first] and bool(images.rows.is_val[second])


def near_confidence(count: int, total: int) -> float:
    """One near duplicate in a thousand images may be a false alarm of the comparison; more are not."""
    return float(np.clip(0.4 + 0.3 * (count - 1) + 30 * (count / total - 0.005), 0.3, 0.97))


def from_files(case: Case) -> Finding | Clear | NotApplicable:
    """The same from the image files alone, without a run."""
    images = case.images
    if images is None or images.pairs is None or not images.rows.is_val.any() or images.rows.is_val.all():
        return NotApplicable("training and validation images" if images is not None else needed(images, "pairs"))
    rows = images.rows
    pairs = [p for p in images.pairs if is_spanning(images, p.first, p.second)]
    exact = {p.second for p in pairs if p.kind != "near"}
    partner = {p.second: p.first for p in reversed(pairs)}
    total = int(rows.is_val.sum())
    groups = name_groups(rows.names, rows.is_val)
    evidence = (
        Evidence("validation images that are also training images", len(partner), 0, "images", total),
        Evidence("of these, with equal bytes or pixels", len(exact), 0, "images"),
        Evidence("names that differ in a counter only, on both sides", groups, 0, "groups"),
    )
    if not partner:
        return Clear("no validation image is a copy of a training image", evidence)
    return Finding(
        summary=f"{len(partner)} of {total} validation images are copies of training images",
        severity_points=-file_inflation(images, set(partner)),
        confidence=0.99 if exact else near_confidence(len(partner), total),
        evidence=evidence,
        remedy=REMEDY,
        subjects=tuple(f"{rows.names[v]} = {rows.names[t]}" for v, t in sorted(partner.items())),
    )


def file_inflation(images: CaseImages, twins: set[int]) -> float:
    """Points by which copies lift a model that knows them by heart: their share times what held-out train is short of 1."""
    held = images.held_out
    share = len(twins) / max(1, int(images.rows.is_val.sum()))
    return 100 * share * (1 - held.train_accuracy) if held is not None else 0.0


def name_groups(names: tuple[str, ...], is_val: npt.NDArray[np.bool_]) -> int:
    """Groups of file names with one stem before a trailing counter that lie on both sides.

    Stems that most files share ("IMG_", a date) name the camera and not a scene.
    """
    stems = [re.sub(r"[-_ .]*\(?\d+\)?$", "", n.replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0]) for n in names]
    sides: dict[str, list[int]] = {}
    for stem, val in zip(stems, is_val.tolist(), strict=True):
        sides.setdefault(stem, [0, 0])[int(val)] += 1
    return sum(1 for stem, (a, b) in sides.items() if stem and a and b and a + b <= max(20, 0.02 * len(names)))


def known_ids(sample: IntArray) -> npt.NDArray[np.int64]:
    """The distinct known sample ids, sorted."""
    return np.unique(sample[sample >= 0]).astype(np.int64)


def inflation(case: Case, val: Pass, twins: set[int], evidence: list[Evidence]) -> float:
    """Points by which the accuracy changes without the twins (negative: it is too good); adds the evidence."""
    table = val.samples
    keep = table.labelled & ~np.isin(table.sample, sorted(twins))
    held = case.images.held_out if case.images is not None and 2 * keep.sum() < len(table) and keep.sum() < FEWEST else None
    if held is not None:
        # So few are left that they say nothing: what a probe knows of pictures that it has not seen says more.
        evidence.append(Evidence("accuracy of a probe on pictures that it has not seen", held.train_accuracy, table.accuracy))
        return -100 * max(0.0, table.accuracy - held.train_accuracy)
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


CHECK = Check(code="DAT101", name="train_val_overlap", stage="files", detect=detect, doc=__doc__ or "", treat=treat)
