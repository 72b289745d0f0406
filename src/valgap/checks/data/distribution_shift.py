"""Training images do not represent validation: another camera, light, place, season, or another mix of classes.

What it looks for
    On the image files: whether a classifier can tell, held out, validation images from training images of the same class
    (features of a pretrained backbone, against labels of the split permuted within classes), which attributes differ
    (brightness, contrast, sharpness, colour, size, format), and whether classes have other shares. On the record: the
    brightness and contrast of the batches that the network was really given, with each phase's own normalisation undone.

Why it hurts validation
    The model is judged on something that it was not taught. Held-out training images are answered well, validation images
    are not: the difference is what the shift costs.

What else looks like this
    A few batches of a sorted list show a few classes only, and a few images vary by themselves: how many were looked at
    counts. Another normalisation moves the batches too, but not the images behind it: PRE201 names that. Overfitting
    lowers held-out training images as well. A split by class is DAT112, a class index in another order DAT102.

Remedy
    Put images of validation's kind into train (split by random draw over all sources), or augment towards it.

Source
    Lopez-Paz and Oquab 2017 (classifier two-sample tests); Rabanser 2019 (failing loudly).
"""

from __future__ import annotations

import math

import numpy as np

from valgap.checks.data.class_index_mismatch import class_map
from valgap.checks.data.one_class_validation import lacks_classes
from valgap.checks.shared.images import class_name, needed, ranked_places
from valgap.checks.shared.seen_light import Seen, files_agree, further_from_files, seen_change, varied_in_train
from valgap.stats import right_when_renamed
from valgap.types import (
    Case,
    CaseImages,
    Check,
    Clear,
    Evidence,
    Finding,
    FloatArray,
    HeldOut,
    Intervention,
    Measured,
    NotApplicable,
    Ranked,
    Shift,
    Stage,
    Untreatable,
)

# Level of each test. The nulls are permutations of the split itself (features/shift.py).
P_VALUE = 0.01
# Significant in large sets is not yet harmful: held-out area under the curve from which a shift is large.
LARGE_AUC = 0.7
# An attribute is named from this distance of its area from one half on.
ATTRIBUTE_DISTANCE = 0.15
# Classes: the largest change of one class's share that is worth naming.
SHARE_CHANGE = 0.05
LEAST_MIX = 1.0  # points that the mix of classes must cost at least, by the run's own answers, to be more than a hint
# Named in this order: what one sees first. What of the file alone differs may be compression, or finer detail.
LOOKS = ("brightness", "contrast", "sharpness", "colourfulness", "grey", "border")
SHAPE = ("width", "height", "aspect")
WORDS = {
    "grey": "greyness", "bytes": "file size", "bits_per_pixel": "bits per pixel", "jpeg_quality": "JPEG quality",
    "aspect": "aspect ratio",
}  # fmt: skip


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Judge what the network saw, then the image files."""
    seen = seen_change(case)
    images = case.images
    shift = images.shift if images is not None else None
    facts = list(seen.evidence) if seen is not None else []
    held = images.held_out if images is not None else None
    if images is not None and shift is not None:
        facts += file_evidence(shift, held)
    if seen is not None and seen.large and not varied_in_train(seen, images):
        return from_inputs(case, seen, facts)
    if images is None or shift is None:
        if seen is None:
            return NotApplicable(f"batches of both phases under known normalisations, or {needed(images, 'shift')}")
        return Clear("validation batches are as bright and contrasted as training batches", tuple(facts))
    return from_files(case, images, shift, facts)


def from_inputs(case: Case, seen: Seen, facts: list[Evidence]) -> Finding:
    """The finding on what the network saw; whether on disk or in the transform makes no difference to it."""
    train, val = case.run.last_train, case.run.last_validation
    table = case.run.closing.rescores.get("train_eval") if case.run.closing is not None else None
    own = table.accuracy if table is not None else train.samples.accuracy if train is not None else math.nan
    stage: Stage | None = None
    if case.images is not None and files_agree(case.images):
        stage = "read_val" if further_from_files(seen, case.images) else "read_train"
    held = case.images.held_out if case.images is not None else None
    reach = min(own, held.train_accuracy) if held is not None and not math.isnan(own) else own
    lost = reach - (val.samples.accuracy if val is not None else math.nan)
    if not math.isnan(lost):
        facts.append(Evidence("accuracy on training images less that on val", 100 * lost, 0.0, "points"))
    return Finding(
        summary=f"validation images are {seen.words} than training images",
        severity_points=100 * max(0.0, lost) if not math.isnan(lost) else 0.0,
        confidence=0.9,
        evidence=tuple(facts),
        remedy="take validation images under training's conditions, or add such images (or such light, by augmentation) to train",
        subjects=foreign_images(case.images),
        ranking=foreign_ranking(case.images),
        stage=stage,
    )


# -- the image files --------------------------------------------------------------------------


def file_evidence(shift: Shift, held: HeldOut | None) -> list[Evidence]:
    """How far the sides can be told apart, by what, and what it costs."""
    found = [
        Evidence("a classifier tells val from train images of the same class (area under the curve)", shift.auc, 0.5),
        Evidence("p-value of that, against permuted splits", shift.p_value, 1.0),
    ]
    for name in changed_attributes(shift)[:3]:
        found.append(Evidence(f"{name} is larger in val (share of pairs)", shift.attribute_auc[name], 0.5))
    change = shift.shares[1] - shift.shares[0]
    if np.isfinite(change).all():
        found.append(Evidence("largest change of a class's share", float(np.abs(change).max()), 0.0))
    if held is not None and not math.isnan(held.val_accuracy):
        found.append(Evidence("a probe's accuracy on val, against held-out train", held.val_accuracy, held.train_accuracy))
    return found


def changed_attributes(shift: Shift) -> list[str]:
    """Attributes that differ significantly and by enough, most first."""
    level = P_VALUE if shift.attribute_p else 0.0
    named = [n for n, p in shift.attribute_p.items() if p <= level and abs(shift.attribute_auc[n] - 0.5) >= ATTRIBUTE_DISTANCE]
    return sorted(named, key=lambda n: -abs(shift.attribute_auc[n] - 0.5))


def from_files(case: Case, images: CaseImages, shift: Shift, facts: list[Evidence]) -> Finding | Clear:
    """What the test on the files says."""
    held = images.held_out
    named = changed_attributes(shift)
    change = shift.shares[1] - shift.shares[0]
    top = int(np.nanargmax(np.abs(change))) if np.isfinite(change).any() else 0
    by_share = (
        not lacks_classes(case) and same_classes(case) and shift.share_p <= P_VALUE and abs(float(change[top])) >= SHARE_CHANGE
    )
    by_kind = shift.p_value <= P_VALUE and shift.auc >= LARGE_AUC
    if not by_share and not by_kind:
        small = shift.p_value <= P_VALUE or shift.share_p <= P_VALUE
        text = "val differs from train measurably, but by little" if small else "val images are like train images"
        return Clear(text, tuple(facts), foreign_ranking(images))
    words = []
    if by_kind:
        words.append(f"validation images differ from training images of the same class in {in_words(named)}")
    if by_share:
        name = class_name(images.rows, top)
        words.append(f"class {name} makes up {shift.shares[1][top]:.0%} of val and {shift.shares[0][top]:.0%} of train")
    lost, sure = cost(images, held)
    harder = harder_mix(case, images, shift)
    # Where it is train that is uneven, an even val is meant, and what the rare classes lack is another cause.
    meant = case.run.last_validation is not None and _evenness(shift.shares[1]) >= _evenness(shift.shares[0])
    told = by_share and not meant and (harder is None or harder.low > LEAST_MIX)
    if by_share and harder is not None:
        facts.append(Evidence("points that val would gain by train's mix of classes", harder.value, 0.0, "points"))
        lost = max(lost, harder.value / 100) if told else lost
    return Finding(
        summary="; ".join(words),
        severity_points=100 * max(0.0, lost),
        confidence=0.9 if sure and by_kind else 0.6 if (by_kind and shift.auc >= 0.8) or told else 0.45,
        evidence=tuple(facts),
        remedy="split by random draw over all sources, or add images of validation's kind to train",
        subjects=foreign_images(images) if by_kind else (),
        ranking=foreign_ranking(images),
    )


def _evenness(shares: FloatArray) -> float:
    """The entropy of the classes' shares (C,), in nats."""
    some = shares[np.isfinite(shares) & (shares > 0)]
    return float(-(some * np.log(some)).sum())


def harder_mix(case: Case, images: CaseImages, shift: Shift) -> Measured | None:
    """Points of validation accuracy that its mix of classes costs: the run's own recall of each class, at train's shares.

    None where no run answered validation: then nothing says whether the mix does harm.
    """
    val = case.run.last_validation
    if val is None or not val.samples.answered:
        return None
    table = val.samples
    classes = len(images.rows.classes)
    known = table.labelled & (table.target < classes)
    recall = class_accuracy(table.target[known], (table.prediction == table.target)[known], classes)
    counts = np.bincount(table.target[known], minlength=classes)
    there = counts > 0
    if not there.any() or len(shift.shares[0]) != classes:
        return None
    wanted = np.where(there, np.nan_to_num(shift.shares[0]), 0.0)
    move = wanted / max(1e-9, wanted.sum()) - counts / counts.sum()
    value = 100 * float((move[there] * recall[there]).sum())
    smoothed = (recall[there] * counts[there] + 1) / (counts[there] + 2)
    error = 100 * float(np.sqrt((move[there] ** 2 * smoothed * (1 - smoothed) / counts[there]).sum()))
    return Measured(value, value - 1.96 * error, value + 1.96 * error)


def same_classes(case: Case) -> bool:
    """Whether one index means one class on both sides, as far as the data sets say; else their shares are of other classes."""
    train, val = case.run.last_train, case.run.last_validation
    if train is None or val is None:
        return True
    first, second = class_map(case, train), class_map(case, val)
    return not first or not second or first == second


def in_words(named: list[str]) -> str:
    """What differs, what one sees before what one measures."""
    if not named:
        return "what they show, not in light or format"
    kinds = [[n for n in named if n in LOOKS], [n for n in named if n in SHAPE], [n for n in named if n not in (*LOOKS, *SHAPE)]]
    told = ", ".join([WORDS.get(n, n) for kind in kinds for n in kind][:3])
    return told if kinds[0] or kinds[1] else f"{told} (compression, or finer detail)"


def cost(images: CaseImages, held: HeldOut | None) -> tuple[float, bool]:
    """(held-out train less val accuracy of the probe at val's class shares, whether it is above zero for sure).

    Where its answers fit validation only under other names of the classes, the names' share of that is no shift's.
    """
    if held is None or math.isnan(held.val_accuracy):
        return 0.0, False
    rows = images.rows
    train = np.flatnonzero(held.folds >= 0)
    val = np.flatnonzero(rows.is_val & (rows.labels >= 0) & (held.answers >= 0))
    ours = class_accuracy(rows.labels[train], held.correct[train], len(rows.classes))
    known = val[np.isfinite(ours[rows.labels[val]])]
    if not len(known):
        return 0.0, False
    expected = float(ours[rows.labels[known]].mean())
    renamed = right_when_renamed(rows.labels[known], held.answers[known], len(rows.classes))
    reached = max(float(right.mean()) for right in (held.correct[known], renamed))
    error = math.sqrt(expected * (1 - expected) * (1 / len(known) + 1 / len(train)) + 1e-9)
    return expected - reached, expected - reached > 2 * error


def class_accuracy(labels: np.ndarray, correct: np.ndarray, classes: int) -> FloatArray:
    """(C,) share right of each class, nan where there is none."""
    n = np.bincount(labels, minlength=classes)
    return np.where(n > 0, np.bincount(labels, weights=correct, minlength=classes) / np.maximum(n, 1), np.nan)


def foreign_ranking(images: CaseImages | None) -> tuple[Ranked, ...]:
    """Validation images by how unlike train they are, most foreign first."""
    if images is None or images.shift is None:
        return ()
    val = images.rows.part(True)
    scores = np.full(len(images.rows.names), np.nan)
    scores[val] = images.shift.foreign
    return tuple(
        Ranked(images.rows.names[i], float(scores[i]), class_name(images.rows, int(images.rows.labels[i])))
        for i in ranked_places(scores, val)
    )


def foreign_images(images: CaseImages | None, most: int = 20) -> tuple[str, ...]:
    """The most foreign validation images."""
    return tuple(r.path for r in foreign_ranking(images)[:most])


def treat(case: Case, finding: Finding) -> Intervention | Untreatable:
    """Where light changed: val's batches brought to train's brightness and contrast. Otherwise nothing can be made up."""
    seen = seen_change(case)
    train, val = case.run.last_train, case.run.last_validation
    if seen is None or not seen.large or train is None or val is None or train.inputs is None or val.inputs is None:
        return Untreatable("images of validation's kind would have to be in train, which needs another split")
    scale = train.inputs.std / np.maximum(val.inputs.std, 1e-6)
    shift = train.inputs.mean - val.inputs.mean * scale
    return Intervention("affine", {"phase": "validation", "scale": scale.tolist(), "shift": shift.tolist()})


CHECK = Check(code="DAT106", name="distribution_shift", stage="files", detect=detect, doc=__doc__ or "", treat=treat)
