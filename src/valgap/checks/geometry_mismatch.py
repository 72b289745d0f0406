"""Image sizes differ between training, validation and the weights.

What it looks for
    Height and width of the batches of both phases, and, for pretrained weights, the size that they were trained at.

Why it hurts validation
    Objects appear at another scale than the filters know. Tiny inputs leave the last feature map one or two pixels wide.

What else looks like this
    Validating a little larger than training is common and often helps (the train-test resolution effect).

Remedy
    Use the resolution, crop and interpolation that belong to the weights, in both phases.

Source
    vision issue 5958, gen-efficientnet-pytorch issue 54; Touvron et al. 2019, "Fixing the train-test resolution discrepancy".
"""

from __future__ import annotations

import math

from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, NotApplicable, Untreatable

# Touvron et al. 2019, table 1: validating 1.3 times larger than training helps, and half or twice the size costs several
# points. Between, nothing is claimed.
SOUND = (0.75, 1.5)
CLEAR_FAULT = 1.9
# Five halvings are the stride of the usual networks: below this the last feature map has fewer than 2 x 2 places.
SMALLEST = 64
FAR_TOO_SMALL = 0.3
UNMEASURED_POINTS = 4.0


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
    model = case.run.trained_model
    if model is None or model.pretrained is not True or not model.expected_size:
        return Clear("training and validation images have about the same size", tuple(facts))
    expected = side(model.expected_size)
    facts.append(Evidence("training image size", round(ours, 1), round(expected, 1), "pixels"))
    if ours < SMALLEST and ours / expected < FAR_TOO_SMALL:
        return _finding(f"{ours:.0f}-pixel images go into weights that were trained at {expected:.0f} pixels", 0.7, facts)
    return Clear("image sizes fit each other and the weights", tuple(facts))


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
    if not SOUND[0] <= side(val.inputs.shape) / side(train.inputs.shape) <= SOUND[1]:
        return Intervention("resize", {"phase": "validation", "size": list(train.inputs.shape[1:])})
    if not model.expected_size:
        return Untreatable("the size that the weights expect is not known")
    return Intervention("resize", {"phase": "both", "size": list(model.expected_size[1:])})


CHECK = Check(code="PRE205", name="geometry_mismatch", detect=detect, doc=__doc__ or "", treat=treat)
