"""Pixel values on another scale: 0..255 against 0..1, or divided twice.

What it looks for
    The range and the type of the input batches of each phase. Normalised photographs lie within about -3 .. 3; a scale some
    255 times off between the phases, or a range that no normalisation of 0..1 gives, is a wrong division.

Why it hurts validation
    The first layer saturates or sees almost nothing; predictions collapse to one class.

What else looks like this
    A missing or doubled Normalize changes the range by a factor of 2 to 5 and is PRE201.

Remedy
    Divide by 255 once, in both phases (ToTensor does it for 8-bit images, not for float arrays).

Source
    ResNet50_on_Cifar_100 issue 1, tensorflow-deep-learning issue 14, DSI deep_learning issue 89.
"""

from __future__ import annotations

import numpy as np

from valgap.types import Case, Check, Clear, Evidence, Finding, InputStats, Intervention, NotApplicable, RunRecord, Untreatable

# Normalize stretches 0..1 by 1/std, with std from .2 to .5 in use: phases differ by at most 5 for that reason.
RATIO = 30.0
# Ranges that no published normalisation of 0..1 gives: the widest in use spans 5.3 (1 / .19).
WIDEST = 20.0
NARROWEST = 0.05
# Without a re-score. The planted case on clothing_mini lost more.
UNMEASURED_POINTS, MOST_POINTS = 15.0, 90.0


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Compare the ranges of the two phases, then each with what normalised images can have."""
    train, val = case.run.last_train, case.run.last_validation
    if train is None or val is None or train.inputs is None or val.inputs is None:
        return NotApplicable("image batches of a training and a validation pass")
    if not (train.inputs.of_images and val.inputs.of_images):
        return NotApplicable("images of one to four channels: the trained model is given what another made of them")
    spans = span(train.inputs), span(val.inputs)
    facts = (
        Evidence("range of val inputs", _range(val.inputs), _range(train.inputs), "", val.inputs.sampled_batches),
        Evidence("type of val inputs", val.inputs.dtype, train.inputs.dtype),
    )
    if min(spans) <= 0:
        return NotApplicable("images that are not constant")
    if max(spans) / min(spans) > RATIO:
        return _finding(
            f"validation inputs span {spans[1]:.3g}, training inputs {spans[0]:.3g}",
            UNMEASURED_POINTS,
            0.97,
            facts,
        )
    scale_of_its_own = own_scale(case.run)
    if scale_of_its_own:
        return Clear(scale_of_its_own, facts)
    model = case.run.trained_model
    if model is None or not pretrained(case.run):
        return Clear("both phases have values on the same scale", facts)
    if max(spans) > WIDEST or max(spans) < NARROWEST:
        return _finding(f"inputs span {spans[0]:.3g}, which pretrained weights do not expect", UNMEASURED_POINTS, 0.85, facts)
    return Clear("both phases have values on the scale of normalised images", facts)


def own_scale(run: RunRecord) -> str:
    """Why the called module may expect other values than published weights do; "" where nothing says so.

    Whole numbers are what no layer takes. A first layer whose weights were changed after they were loaded was made to suit.
    """
    passes = run.last_train, run.last_validation
    kinds = [p.inputs.dtype for p in passes if p is not None and p.inputs is not None]
    if kinds and all("int" in kind for kind in kinds):
        return "the network is given whole numbers: it brings them to the scale that its layers expect itself"
    model = run.trained_model
    if model is None or not len(model.altered):
        return ""
    weights = np.flatnonzero(model.is_parameter)
    if len(weights) and model.altered[weights[0]] == 1:
        return "the network's first weights were changed after they were loaded: it may expect values of its own"
    return ""


def span(inputs: InputStats) -> float:
    """Largest minus smallest input value over all channels."""
    return float(np.max(inputs.maximum) - np.min(inputs.minimum))


def pretrained(run: RunRecord) -> bool:
    """Whether the trained model began with given weights."""
    return run.trained_model is not None and run.trained_model.pretrained is True


def _range(inputs: InputStats) -> str:
    return f"{float(np.min(inputs.minimum)):.3g} .. {float(np.max(inputs.maximum)):.3g}"


def _finding(summary: str, points: float, confidence: float, facts: tuple[Evidence, ...]) -> Finding:
    return Finding(
        summary=summary,
        severity_points=points,
        confidence=confidence,
        evidence=(*facts, Evidence("cost (not re-scored): assumed", points, 0.0, "points")),
        remedy="divide by 255 exactly once in both phases, then normalise",
        most_points=MOST_POINTS,
    )


def treat(case: Case, finding: Finding) -> Intervention | Untreatable:
    """Validation images on the scale of training images; else both on that of normalised images."""
    train, val, model = case.run.last_train, case.run.last_validation, case.run.trained_model
    if train is None or val is None or train.inputs is None or val.inputs is None or model is None:
        return Untreatable("the ranges of the images are not known")
    spans = span(train.inputs), span(val.inputs)
    if max(spans) / min(spans) > RATIO:
        scale = (train.inputs.maximum - train.inputs.minimum) / (val.inputs.maximum - val.inputs.minimum)
        shift = train.inputs.minimum - val.inputs.minimum * scale
        return Intervention("affine", {"phase": "validation", "scale": scale.tolist(), "shift": shift.tolist()})
    if model.expected_mean is None or model.expected_std is None:
        return Untreatable("the range that the weights expect is not known")
    unit = 1 / 255 if max(spans) > WIDEST else 255.0
    return Intervention(
        "affine",
        {
            "phase": "both",
            "scale": [unit / s for s in model.expected_std],
            "shift": [-m / s for m, s in zip(model.expected_mean, model.expected_std, strict=True)],
        },
    )


CHECK = Check(code="PRE202", name="value_range_mismatch", stage="read_val", detect=detect, doc=__doc__ or "", treat=treat)
