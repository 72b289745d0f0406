"""Images are normalised differently in training and validation, or not as the weights expect.

What it looks for
    The mean and standard deviation that each phase subtracts and divides by: from the Normalize steps of the transforms,
    and, independently of them, from the grey levels of the batches. An 8-bit image after ToTensor and Normalize(m, s) has
    levels 1 / (255 s) apart, whatever its brightness, and black and white at the ends of its range: where both ends lie
    further the same way, the phases subtract different numbers (or the subtraction ran over in bytes). For pretrained
    weights, both phases are compared with what the weights expect. Other constants than theirs are a suspicion only where
    validation scores better under theirs; no normalisation at all is one by itself, since a head that was trained without
    hides its cost; so are values where neither
    published constants nor those of the data put them, as after a second normalisation.

Why it hurts validation
    Every layer meets inputs of another scale and offset than those it was trained on.

What else looks like this
    Mixing training images (mixup) puts their levels nearer together and leaves their contrast as it is: a normalisation
    changes both alike. A darker or less contrasted validation set moves the mean and the spread, not the distance between
    grey levels: that is a shift of the data (DAT106). A range of 0..255 is PRE202.

Remedy
    Use one Normalize, with the mean and standard deviation of the pretrained weights, in every phase.

Source
    ResNet-pytorch issue 1, dogs_vs_cats issue 20, torchvision documentation of pretrained weights.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from valgap.checks.preprocessing.value_range_mismatch import own_scale
from valgap.checks.shared.levels import Norm, declared, level_ratio, moved
from valgap.checks.shared.rescored import between
from valgap.types import (
    Case,
    Check,
    Clear,
    Evidence,
    Finding,
    InputStats,
    Intervention,
    NotApplicable,
    Pass,
    RunRecord,
    Untreatable,
)

# Rounding of published constants (0.225 against 0.2255) stays below this; half of an 8-bit normalisation does not.
SAME_RATIO = 0.03
SAME_MEAN = 0.03
# A scale outside this is another range of values (0..255 against 0..1).
RANGE_RATIO = 30.0
# Images of one kind differ in contrast by less than this factor: a larger ratio of levels must show in the contrast too.
LARGE_RATIO = 1.9
P_VALUE = 0.01
# Not re-scored: what skipping Normalize in val cost on clothing_mini at least.
UNMEASURED_POINTS = 5.0
# Not normalised in either phase: what it cost with a new head on frozen features of clothing_mini (benchmarks/faults.py).
NEVER_POINTS = 4.0
# Black and white under the constants in use lie within this; the data's own constants may lead beyond it, but leave a mean near 0
# and a spread near 1.
PUBLISHED, OFF_CENTRE, SPREAD = 2.9, 0.8, 1.8
# Levels of 8-bit images in 0..1 lie 1 / 255 apart.
UNIT_LEVELS = 1 / 255


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Compare the normalisation of the two phases, then both with the weights' own."""
    train, val = case.run.last_train, case.run.last_validation
    if train is None or val is None or train.inputs is None or val.inputs is None:
        return NotApplicable("image batches of a training and a validation pass")
    if not (train.inputs.of_images and val.inputs.of_images):
        return NotApplicable("images of one to four channels: the trained model is given what another made of them")
    if len(train.inputs.mean) != len(val.inputs.mean):
        return NotApplicable("the same number of channels in both phases")
    levels = level_ratio(train.inputs, val.inputs) if not levels_vary(case.run, train) else None
    steps = declared(case, train), declared(case, val)
    facts = evidence_of(train.inputs, val.inputs, steps)
    by_levels = levels is not None and abs(np.log(levels)) > SAME_RATIO
    by_steps = steps[0] is not None and steps[1] is not None and not same(steps[0], steps[1])
    if by_steps and levels is not None and not explained(levels, steps[0], steps[1]):
        by_steps = False  # what else normalises, a function or a loop, no list of steps tells; the values do
    if levels is not None and not 1 / RANGE_RATIO < levels < RANGE_RATIO:
        return Clear("the phases differ by their range of values", facts)
    if by_levels and levels is not None and blended(train.inputs, val.inputs, levels):
        levels, by_levels = None, False
    if levels is None and by_steps and not by_statistics(train.inputs, val.inputs):
        by_steps = False  # a Normalize outside the transform makes up for it
    if by_levels or (levels is None and by_steps) or (by_steps and offset_differs(train.inputs, val.inputs)):
        return between_phases(case.run, facts, sure=by_levels and by_steps)
    if moved(train.inputs, val.inputs):
        return between_phases(case.run, (*facts, *_ranges(train.inputs, val.inputs)), sure=False)
    return against_weights(case.run, facts)


def levels_vary(run: RunRecord, train: Pass) -> bool:
    """Whether the distance of grey levels is another in every pass of training: light that is drawn anew scales the values."""
    passes = [p.inputs for p in run.of_phase("train") if p.dataset == train.dataset and p.inputs is not None]
    distances = [float(np.median(i.quantum)) for i in passes if np.isfinite(i.quantum).all() and (i.quantum > 0).all()]
    return len(distances) > 1 and bool(np.ptp(np.log(distances)) > SAME_RATIO)


def blended(train: InputStats, val: InputStats, levels: float) -> bool:
    """Whether the contrast goes against the levels' ratio: then images were mixed, and not normalised otherwise."""
    if abs(np.log(levels)) < np.log(LARGE_RATIO):
        return False
    contrast = float(np.median(np.log(np.maximum(val.std, 1e-9) / np.maximum(train.std, 1e-9))))
    return bool(abs(contrast) < abs(contrast - np.log(levels)))


def same(a: Norm, b: Norm) -> bool:
    """Whether two normalisations agree within rounding."""
    ratio = np.abs(np.log(np.maximum(a[1], 1e-12) / np.maximum(b[1], 1e-12)))
    return bool((ratio <= SAME_RATIO).all() and (np.abs(a[0] - b[0]) <= SAME_MEAN).all())


def explained(levels: float, train: Norm | None, val: Norm | None) -> bool:
    """Whether the distance of val's grey levels over train's is what the two declared normalisations give."""
    if train is None or val is None:
        return False
    expected = float(np.median(np.log(np.maximum(train[1], 1e-12) / np.maximum(val[1], 1e-12))))
    return bool(abs(np.log(levels) - expected) <= SAME_RATIO)


def by_statistics(train: InputStats, val: InputStats) -> bool:
    """Whether the values themselves differ between the phases beyond the spread of batches."""
    spread = np.maximum(train.batch_means.std(0), 1e-3) * 3
    return bool((np.abs(train.mean - val.mean) > spread).any())


def offset_differs(train: InputStats, val: InputStats) -> bool:
    """Whether the darkest values differ: black is -mean/std in every image."""
    return bool((np.abs(train.minimum - val.minimum) > 0.1 * np.maximum(train.std, 1e-6)).any())


def evidence_of(train: InputStats, val: InputStats, steps: tuple[Norm | None, Norm | None]) -> tuple[Evidence, ...]:
    """Channel means, spreads and declared constants of val beside those of train."""

    def text(values: npt.NDArray[np.floating]) -> str:
        return "(" + ", ".join(f"{v:.3g}" for v in values) + ")"

    found = [
        Evidence("val input mean per channel", text(val.mean), text(train.mean), "", val.sampled_batches),
        Evidence("val input std per channel", text(val.std), text(train.std), "", val.sampled_batches),
        Evidence("distance of grey levels in val batches", text(val.quantum), text(train.quantum)),
    ]
    if steps[0] is not None and steps[1] is not None:
        found.append(Evidence("std that val's transform divides by", text(steps[1][1]), text(steps[0][1])))
    return tuple(found)


def _ranges(train: InputStats, val: InputStats) -> tuple[Evidence, ...]:
    def text(inputs: InputStats) -> str:
        return f"{float(inputs.minimum.min()):.3g} .. {float(inputs.maximum.max()):.3g}"

    return (Evidence("range of val inputs", text(val), text(train), "", val.sampled_batches),)


def between_phases(run: RunRecord, facts: tuple[Evidence, ...], sure: bool) -> Finding:
    """The finding for two phases with different normalisation; its points are re-scored where possible."""
    gain = between(run, "val_train_norm")
    cost = Evidence("cost (not re-scored): assumed", UNMEASURED_POINTS, 0.0, "points")
    if gain is not None:
        cost = gain.evidence("val accuracy gained with train's normalisation")
    return Finding(
        summary="validation images are normalised differently from training images",
        severity_points=100 * gain.value if gain is not None else UNMEASURED_POINTS,
        confidence=0.98 if sure else 0.9,
        evidence=(cost, *facts),
        remedy="use the same Normalize (the one of the pretrained weights) in the training and the validation transform",
    )


def against_weights(run: RunRecord, facts: tuple[Evidence, ...]) -> Finding | Clear:
    """Both phases agree: are they what the weights expect? Only a measured gain makes it a suspicion."""
    scale_of_its_own = own_scale(run)
    if scale_of_its_own:
        return Clear(f"train and val are given alike; {scale_of_its_own}", facts)
    gain = between(run, "val_weights_norm")
    better = gain is not None and gain.value > 0 and gain.p_value < P_VALUE
    if never(run) and not better:
        return _assumed(
            "images are not normalised at all, which the pretrained weights expect",
            NEVER_POINTS,
            0.6,
            facts,
            "add Normalize with the mean and standard deviation that belong to the weights, in both phases",
        )
    if beyond_all(run) and not better:
        return _assumed(
            "values lie where no normalisation of images puts them: as if they were normalised twice",
            UNMEASURED_POINTS,
            0.8,
            facts,
            "normalise once, with the mean and standard deviation that belong to the weights, in both phases",
        )
    if gain is None:
        return Clear("train and val are normalised alike", facts)
    evidence = gain.evidence("val accuracy gained with the weights' own normalisation")
    if gain.value <= 0 or gain.p_value > P_VALUE:
        return Clear("train and val are normalised alike, and the weights' own normalisation is no better", (evidence, *facts))
    return Finding(
        summary="images are not normalised as the pretrained weights expect",
        severity_points=100 * gain.value,
        confidence=0.8,
        evidence=(evidence, *facts),
        remedy="normalise with the mean and standard deviation that belong to the weights, in both phases",
    )


def _assumed(summary: str, points: float, confidence: float, facts: tuple[Evidence, ...], remedy: str) -> Finding:
    """A finding whose cost a head that was trained with it hides."""
    cost = Evidence("cost (not re-scored): assumed", points, 0.0, "points")
    return Finding(summary, points, confidence, (cost, *facts), remedy)


def never(run: RunRecord) -> bool:
    """Whether pretrained weights that expect normalised images are given plain 0..1 ones in both phases."""
    train, val, model = run.last_train, run.last_validation, run.trained_model
    if train is None or val is None or train.inputs is None or val.inputs is None or model is None:
        return False
    if model.pretrained is not True or not model.expected_whole or model.expected_std is None:
        return False
    if max(model.expected_std) > 1 / (1 + SAME_RATIO):
        return False  # these weights want 0..1
    sides = (train.inputs, val.inputs)
    plain = [bool(np.allclose(s.quantum, UNIT_LEVELS, rtol=SAME_RATIO)) and float(s.minimum.min()) >= 0 for s in sides]
    return all(plain)


def beyond_all(run: RunRecord) -> bool:
    """Whether pretrained weights are given values, in both phases, that neither published constants nor the data's own give."""
    train, val, model = run.last_train, run.last_validation, run.trained_model
    if train is None or val is None or train.inputs is None or val.inputs is None or model is None:
        return False
    if model.pretrained is not True:
        return False
    return all(_beyond(s) for s in (train.inputs, val.inputs))


def _beyond(inputs: InputStats) -> bool:
    outside = float(inputs.minimum.min()) < -PUBLISHED or float(inputs.maximum.max()) > PUBLISHED
    centre, spread = float(np.abs(inputs.mean).mean()), float(inputs.std.mean())
    return outside and (centre > OFF_CENTRE or not 1 / SPREAD < spread < SPREAD)


def treat(case: Case, finding: Finding) -> Intervention | Untreatable:
    """Validation images normalised as training images; else both as the weights expect.

    Transforms do not tell all: a loop or a collate function may normalise, too. Where the grey levels of the phases differ in a
    way that the transforms do not explain, validation images are brought to the levels and the mean of training images. Where
    the values are none that any normalisation gives: both by the training images' own mean and standard deviation.
    """
    train, val, model = case.run.last_train, case.run.last_validation, case.run.trained_model
    if train is None or val is None or model is None:
        return Untreatable("a training and a validation pass are missing")
    ours, theirs = declared(case, train), declared(case, val)
    if train.inputs is not None and beyond_all(case.run) and not (ours is not None and gives_pixels(ours, train.inputs)):
        measured = np.asarray(train.inputs.mean, np.float64), np.maximum(train.inputs.std.astype(np.float64), 1e-6)
        return renormalize((np.zeros_like(measured[0]), np.ones_like(measured[1])), measured, "both")
    if train.inputs is not None and val.inputs is not None:
        levels = differing_levels(case.run, train, train.inputs, val.inputs)
        if levels is not None and not explained(levels, ours, theirs):
            identity = np.zeros(len(train.inputs.mean)), np.ones(len(train.inputs.mean))
            return renormalize(measured_between(train.inputs, val.inputs, levels), identity, "validation")
        if moved(train.inputs, val.inputs) and (ours is None or theirs is None or same(ours, theirs)):
            black, white, low, high = (
                np.asarray(ends, np.float64)
                for ends in (train.inputs.minimum, train.inputs.maximum, val.inputs.minimum, val.inputs.maximum)
            )
            scale = (white - black) / (high - low)
            return renormalize((-low * scale, scale), (-black, np.ones_like(scale)), "validation")
    if ours is None or theirs is None:
        return Untreatable("the normalisation is no step of a transform that is known")
    if not same(ours, theirs):
        return renormalize(theirs, ours, "validation")
    if model.expected_mean is None or model.expected_std is None:
        return Untreatable("the normalisation that the weights expect is not known")
    return renormalize(ours, (np.array(model.expected_mean), np.array(model.expected_std)), "both")


def differing_levels(run: RunRecord, train_pass: Pass, train: InputStats, val: InputStats) -> float | None:
    """Distance of grey levels in val over that in train, where it is another in a way that normalisations are; else None."""
    levels = level_ratio(train, val) if not levels_vary(run, train_pass) else None
    if levels is None or abs(np.log(levels)) <= SAME_RATIO or not 1 / RANGE_RATIO < levels < RANGE_RATIO:
        return None
    return None if blended(train, val, levels) else levels


def measured_between(train: InputStats, val: InputStats, levels: float) -> Norm:
    """(shift, scale), each (C,), that bring val's values to train's grey levels and mean."""
    ratio = val.quantum.astype(np.float64) / np.where(train.quantum > 0, train.quantum, np.nan)
    near = np.isfinite(ratio) & (np.abs(np.log(np.where(ratio > 0, ratio, np.nan) / levels)) < np.log(LARGE_RATIO))
    scale = 1 / np.where(near, ratio, levels)
    return train.mean - scale * val.mean, scale


def gives_pixels(norm: Norm, inputs: InputStats) -> bool:
    """Whether images so normalised were pixels of 0..1 before: their mean, undone, is one."""
    before = inputs.mean * norm[1] + norm[0]
    return bool(((before > 0) & (before < 1)).all())


def renormalize(old: Norm, new: Norm, phase: str) -> Intervention:
    """From one (mean, std) to another at the model's input."""
    scale, shift = old[1] / new[1], (old[0] - new[0]) / new[1]
    return Intervention("affine", {"phase": phase, "scale": scale.tolist(), "shift": shift.tolist()})


CHECK = Check(code="PRE201", name="normalization_mismatch", stage="read_val", detect=detect, doc=__doc__ or "", treat=treat)
