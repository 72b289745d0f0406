"""Image sizes differ between training, validation and the weights.

What it looks for
    Height and width of the batches of both phases, and, for pretrained weights, the size that they were trained at. Crop,
    aspect and interpolation leave no trace in a batch's shape: where the closing measurements scored validation images that
    were prepared from the file on as the weights want them, a clear gain over every other way of scoring is a suspicion.

Why it hurts validation
    Objects appear at another scale than the filters know. Tiny inputs leave the last feature map one or two pixels wide.

What else looks like this
    Validating a little larger than training is common and often helps (the train-test resolution effect). Images far below
    the weights' size in both phases may be meant, to save time; what they cost is not measured, so that they are a hint.

Remedy
    Use the resolution, crop and interpolation that belong to the weights, in both phases.

Source
    vision issue 5958, gen-efficientnet-pytorch issue 54; Touvron et al. 2019, "Fixing the train-test resolution discrepancy".
"""

from __future__ import annotations

import math

from valgap.checks.shared.rescored import Gain, between
from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, NotApplicable, Untreatable

# Touvron et al. 2019, table 1: validating 1.3 times larger than training helps, and half or twice the size costs several
# points. Between, nothing is claimed.
SOUND = (0.75, 1.5)
CLEAR_FAULT = 1.9
# Five halvings are the stride of the usual networks: below this the last feature map has fewer than 2 x 2 places.
SMALLEST = 64
FAR_TOO_SMALL = 0.3
UNMEASURED_POINTS = 4.0
P_VALUE = 0.01
# What else may be wrong with validation images, each with a check of its own: a gain must go beyond them.
OTHER_SCORES = ("val_eval", "val_fixed", "val_train_norm", "val_weights_norm", "val_flipped_channels")


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Compare the sizes of both phases, then with the weights' own."""
    train, val = case.run.last_train, case.run.last_validation
    if train is None or val is None or train.inputs is None or val.inputs is None:
        return NotApplicable("image batches of a training and a validation pass")
    ours, theirs = side(train.inputs.shape), side(val.inputs.shape)
    facts = [Evidence("val image size (root of height x width)", round(theirs, 1), round(ours, 1), "pixels")]
    ratio = theirs / ours
    if not SOUND[0] <= ratio <= SOUND[1]:
        sure = ratio >= CLEAR_FAULT or ratio <= 1 / CLEAR_FAULT
        return _finding(f"validation images are {ratio:.2g} times as large as training images", 0.8 if sure else 0.45, facts)
    gain = gain_as_weights_expect(case)
    if gain is not None and gain.value > 0 and gain.p_value < P_VALUE:
        return Finding(
            summary="validation images are cropped or resized otherwise than the weights want, and score lower for it",
            severity_points=100 * gain.value,
            confidence=0.7,
            evidence=(gain.evidence("val accuracy gained when prepared as the weights expect"), *facts),
            remedy="use the resolution, crop and interpolation that belong to the weights for validation images",
        )
    model = case.run.trained_model
    if model is None or model.pretrained is not True or not model.expected_size:
        return Clear("training and validation images have about the same size", tuple(facts))
    expected = side(model.expected_size)
    facts.append(Evidence("training image size", round(ours, 1), round(expected, 1), "pixels"))
    if ours < SMALLEST and ours / expected < FAR_TOO_SMALL:
        # Small images are often meant, to save time, and nothing here measures what larger ones would give: a hint.
        return _finding(f"{ours:.0f}-pixel images go into weights that were trained at {expected:.0f} pixels", 0.4, facts)
    return Clear("image sizes fit each other and the weights", tuple(facts))


def gain_as_weights_expect(case: Case) -> Gain | None:
    """Gain of validation images prepared as the weights want over the best other way of scoring; None if not measured.

    None as well where the program works at another size on purpose: larger images then score better, which is no fault.
    """
    last, model = case.run.last_validation, case.run.trained_model
    if last is None or last.inputs is None or model is None or not model.expected_size:
        return None
    if not SOUND[0] <= side(last.inputs.shape) / side(model.expected_size) <= SOUND[1]:
        return None
    gains = [between(case.run, "val_weights", other) for other in OTHER_SCORES]
    return min((g for g in gains if g is not None), key=lambda g: g.value, default=None)


def side(shape: tuple[int, ...]) -> float:
    """Root of height times width of a (C, H, W) shape."""
    return math.sqrt(max(1, shape[-1]) * max(1, shape[-2]))


def _finding(summary: str, confidence: float, facts: list[Evidence]) -> Finding:
    return Finding(
        summary=summary,
        severity_points=UNMEASURED_POINTS,
        confidence=confidence,
        evidence=(*facts, Evidence("cost (not re-scored): assumed", UNMEASURED_POINTS, 0.0, "points")),
        remedy="resize both phases to the size that the weights were trained at (the transform that belongs to them)",
    )


def treat(case: Case, finding: Finding) -> Intervention | Untreatable:
    """Validation images in the size of training images; else both in the size that the weights expect."""
    train, val, model = case.run.last_train, case.run.last_validation, case.run.trained_model
    if train is None or val is None or train.inputs is None or val.inputs is None or model is None:
        return Untreatable("the sizes of the images are not known")
    gain = gain_as_weights_expect(case)
    if gain is not None and gain.value > 0 and gain.p_value < P_VALUE and model.expected_crop is not None:
        assert model.expected_mean is not None and model.expected_std is not None and model.expected_size is not None
        prepared = {
            "size": list(model.expected_size),
            "crop_share": model.expected_crop,
            "interpolation": model.expected_interpolation or "bilinear",
            "mean": list(model.expected_mean),
            "std": list(model.expected_std),
        }
        return Intervention("weights_transform", {"phase": "validation", **prepared})
    if not SOUND[0] <= side(val.inputs.shape) / side(train.inputs.shape) <= SOUND[1]:
        return Intervention("resize", {"phase": "validation", "size": list(train.inputs.shape[1:])})
    if not model.expected_size:
        return Untreatable("the size that the weights expect is not known")
    return Intervention("resize", {"phase": "both", "size": list(model.expected_size[1:])})


CHECK = Check(code="PRE205", name="geometry_mismatch", stage="read_val", detect=detect, doc=__doc__ or "", treat=treat)
