"""Brightness and contrast of the images behind the batches that a network was given. No check; distribution_shift uses it.

Each phase's own normalisation is undone, where it is known, so that what is compared are pictures of 0..1.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from valgap.checks.shared.levels import declared, level_ratio
from valgap.checks.shared.seen_part import labels_of
from valgap.types import Case, CaseImages, Evidence, FloatArray, InputStats, Pass

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
# The first four batches of a pass are looked at, then every 16th (seams/looking/inputs.py).
FIRST, EVERY = 4, 16
LEVELS_AGREE = 0.05
# Crops move the mean brightness of sound sets by less than this from that of the whole files.
FILES_AGREE = 0.05
# Resizing and crops move the contrast by less than this factor.
CONTRAST_AGREES = 1.3


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
