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
import numpy.typing as npt
from scipy.special import stdtrit

from valgap.checks.class_index_mismatch import class_map
from valgap.checks.images import class_name, needed, ranked_places
from valgap.checks.normalization_mismatch import declared, level_ratio
from valgap.checks.one_class_validation import lacks_classes
from valgap.checks.seen_part import labels_of
from valgap.types import (
    Case,
    CaseImages,
    Check,
    Clear,
    Evidence,
    Finding,
    FloatArray,
    HeldOut,
    InputStats,
    Intervention,
    NotApplicable,
    Pass,
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
# Named in this order: what one sees first. What of the file alone differs may be compression, or finer detail.
LOOKS = ("brightness", "contrast", "sharpness", "colourfulness", "grey", "border")
SHAPE = ("width", "height", "aspect")
WORDS = {
    "grey": "greyness", "bytes": "file size", "bits_per_pixel": "bits per pixel", "jpeg_quality": "JPEG quality",
    "aspect": "aspect ratio",
}  # fmt: skip
# What the network saw: a change of mean brightness or of contrast by this much of the full range (or this ratio), beyond
# the spread of batches. ColorJitter of 0.2 moves whole epochs by less than 0.01.
BRIGHTNESS_CHANGE = 0.08
CONTRAST_RATIO = 1.7
Z = 4.0
Z_TAIL = 3.2e-5  # one-sided, of Z standard errors
# Brightness of single photographs of one kind (0..1), and how many batches this knowledge is worth.
BRIGHTNESS_SPREAD, PRIOR = 0.12, 6
# Contrast of single photographs of one kind varies by a third (clothing_mini, hymenoptera_256).
CONTRAST_SPREAD = 0.35
# The first four batches of a pass are looked at, then every 16th (seams/inputs.py).
FIRST, EVERY = 4, 16
LEVELS_AGREE = 0.05
# Crops move the mean brightness of sound sets by less than this from that of the whole files.
FILES_AGREE = 0.05
# Resizing and crops move the contrast by less than this factor.
CONTRAST_AGREES = 1.3


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


# -- what the network saw ---------------------------------------------------------------------


class Seen:
    """Brightness and contrast (0..1) of the images behind the batches of both phases."""

    def __init__(self, train: tuple[float, float, float], val: tuple[float, float, float], images: tuple[int, int]) -> None:
        self.train, self.val = train, val
        self.noise = CONTRAST_SPREAD * math.sqrt(sum(1 / max(1, n) for n in images))  # of the log of the contrasts' ratio

    @property
    def large(self) -> bool:
        """Whether brightness or contrast changed, beyond what batches vary by."""
        return self.light_changed or self.contrast_changed

    @property
    def light_changed(self) -> bool:
        """Whether the brightness changed, beyond what batches vary by."""
        change = abs(self.val[0] - self.train[0])
        return change > BRIGHTNESS_CHANGE and change > Z * math.hypot(self.train[2], self.val[2])

    @property
    def contrast_changed(self) -> bool:
        """Whether the contrast is another by a factor of CONTRAST_RATIO, either way, beyond what so few images vary by."""
        change = abs(math.log(max(1e-6, self.val[1]) / max(1e-6, self.train[1])))
        return change > max(math.log(CONTRAST_RATIO), Z * self.noise)

    @property
    def words(self) -> str:
        """What changed, in words."""
        found = []
        if abs(self.val[0] - self.train[0]) > BRIGHTNESS_CHANGE:
            found.append("darker" if self.val[0] < self.train[0] else "brighter")
        if self.val[1] * CONTRAST_RATIO < self.train[1]:
            found.append("of less contrast")
        elif self.val[1] > CONTRAST_RATIO * self.train[1]:
            found.append("of more contrast")
        return " and ".join(found)

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """Both, as the network was given them."""
        return (
            Evidence("brightness of val images as the network saw them (0..1)", self.val[0], self.train[0]),
            Evidence("contrast of val images as the network saw them (0..1)", self.val[1], self.train[1]),
        )


def varied_in_train(seen: Seen, images: CaseImages | None) -> bool:
    """Whether validation shows its files as they are, and training is what makes its own darker, brighter or more contrasted.

    Black borders of turned and moved pictures do; a model is not misled by what goes with no class (what goes
    too far has a name of its own).
    """
    if images is None:
        return False
    ours, theirs = (of_files(images, side) for side in (False, True))
    off_train, off_val = abs(seen.train[0] - ours[0]), abs(seen.val[0] - theirs[0])
    light = off_val < FILES_AGREE and off_train > off_val + FILES_AGREE
    # How far the contrast is from that of the files, and that of the files of one side from the other's, as factors.
    of_train, of_val, between = (
        abs(math.log(a / b)) for a, b in ((seen.train[1], ours[1]), (seen.val[1], theirs[1]), (theirs[1], ours[1]))
    )
    contrast = max(of_val, between) < math.log(CONTRAST_AGREES) and of_train > of_val
    return (light or not seen.light_changed) and (contrast or not seen.contrast_changed)


def of_files(images: CaseImages, is_val: bool) -> tuple[float, float]:
    """(mean, standard deviation) of the grey pixels, 0..1, of all files of one side."""
    rows = images.rows.is_val == is_val
    brightness, contrast = (images.attributes.numbers[name][rows] for name in ("brightness", "contrast"))
    known = np.isfinite(brightness) & np.isfinite(contrast)
    total = (contrast[known] ** 2).mean() + brightness[known].var() if known.any() else np.nan
    return float(brightness[known].mean()) if known.any() else math.nan, math.sqrt(max(1e-12, total))


def seen_change(case: Case) -> Seen | None:
    """Brightness and contrast behind the batches; None where a normalisation is not known or differs between phases."""
    train, val = case.run.last_train, case.run.last_validation
    if train is None or val is None or train.inputs is None or val.inputs is None:
        return None
    if len(train.inputs.mean) != len(val.inputs.mean) or "uint8" in (train.inputs.dtype, val.inputs.dtype):
        return None
    a, b = behind(case, train, train.inputs), behind(case, val, val.inputs)
    if a is None or b is None or not same_levels(case, train, val, train.inputs, val.inputs):
        return None
    if not (mixed(case, train) and mixed(case, val)):
        return None
    return Seen(a, b, (int(looked_at(train).sum()), int(looked_at(val).sum())))


def looked_at(one: Pass) -> npt.NDArray[np.bool_]:
    """(N,) which samples were in batches whose pixels were looked at."""
    number = np.unique(one.samples.batch, return_inverse=True)[1]
    return np.asarray((number < FIRST) | (number % EVERY == 0))


def mixed(case: Case, one: Pass) -> bool:
    """Whether the batches that were looked at hold about the classes of a random draw: the first of a sorted list do not."""
    target = one.samples.target
    if not one.samples.labelled.any():
        return True
    labels = labels_of(case.run, one)
    whole = labels[0] if labels is not None else target[one.samples.labelled]
    shares = np.bincount(whole) / len(whole)
    some = target[looked_at(one) & one.samples.labelled]
    return len(np.unique(some)) >= 0.5 * float((1 - (1 - shares) ** len(some)).sum())


def same_levels(case: Case, train: Pass, val: Pass, ours: InputStats, theirs: InputStats) -> bool:
    """Whether the distance of grey levels bears out the declared normalisations (where it can be read)."""
    levels = level_ratio(ours, theirs)
    first, second = declared(case, train), declared(case, val)
    if levels is None or first is None or second is None:
        return True
    expected = float(np.median(first[1] / second[1]))
    return abs(math.log(levels / expected)) < LEVELS_AGREE


def behind(case: Case, one: Pass, inputs: InputStats) -> tuple[float, float, float] | None:
    """(mean, standard deviation, standard error of the mean) of images 0..1 before normalisation; None unknown."""
    norm = declared(case, one)
    if norm is None:
        return None
    pixels = inputs.mean * norm[1] + norm[0]
    batches = (inputs.batch_means * norm[1] + norm[0]).mean(1)
    # Images of 0..1 behind it: anything else is no photograph under this normalisation.
    if (inputs.minimum * norm[1] + norm[0]).min() < -0.05 or (inputs.maximum * norm[1] + norm[0]).max() > 1.05:
        return None
    return float(pixels.mean()), float((inputs.std * norm[1]).mean()), standard_error(batches, float(np.median(one.batch_sizes)))


def standard_error(batches: FloatArray, size: float) -> float:
    """Of the mean over batches of ``size`` images; Z of it leave out Z_TAIL, however few they are.

    The spread of a few batches is hardly known, so that what photographs usually vary by counts as PRIOR more of them.
    """
    n = len(batches)
    usual = BRIGHTNESS_SPREAD**2 / max(1.0, size)
    squares = float(((batches - batches.mean()) ** 2).sum())
    variance = (PRIOR * usual + squares) / (PRIOR + n - 1)
    wider = float(stdtrit(PRIOR + n - 1, 1 - Z_TAIL)) / Z
    return wider * math.sqrt(variance / max(1, n))


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


def files_agree(images: CaseImages) -> bool:
    """Whether the files of both sides are as bright and as contrasted: then what differs comes about in reading them."""
    ours, theirs = (of_files(images, side) for side in (False, True))
    return abs(ours[0] - theirs[0]) < FILES_AGREE and abs(math.log(ours[1] / theirs[1])) < math.log(CONTRAST_AGREES)


def further_from_files(seen: Seen, images: CaseImages) -> bool:
    """Whether validation is further from its files than training is from its own."""
    light, contrast = [], []
    for shown, side in ((seen.train, False), (seen.val, True)):
        files = of_files(images, side)
        light.append(abs(shown[0] - files[0]))
        contrast.append(abs(math.log(max(1e-6, shown[1]) / max(1e-6, files[1]))))
    return contrast[1] > contrast[0] if seen.contrast_changed else light[1] > light[0]


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
    return Finding(
        summary="; ".join(words),
        severity_points=100 * max(0.0, lost),
        confidence=0.9 if sure and by_kind else 0.6 if (by_kind and shift.auc >= 0.8) or by_share else 0.45,
        evidence=tuple(facts),
        remedy="split by random draw over all sources, or add images of validation's kind to train",
        subjects=foreign_images(images) if by_kind else (),
        ranking=foreign_ranking(images),
    )


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
    """(held-out train less val accuracy of the probe at val's class shares, whether it is above zero for sure)."""
    if held is None or math.isnan(held.val_accuracy):
        return 0.0, False
    rows = images.rows
    train = np.flatnonzero(held.folds >= 0)
    val = np.flatnonzero(rows.is_val & (rows.labels >= 0) & np.isfinite(held.probabilities[:, 0]))
    ours = class_accuracy(rows.labels[train], held.correct[train], len(rows.classes))
    known = val[np.isfinite(ours[rows.labels[val]])]
    if not len(known):
        return 0.0, False
    expected = float(ours[rows.labels[known]].mean())
    reached = float(held.correct[known].mean())
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
