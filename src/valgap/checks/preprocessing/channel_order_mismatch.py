"""Red and blue are swapped in one phase.

What it looks for
    Validation batches whose channel means agree with training only after the order of the channels is reversed, and a
    validation accuracy that rises when they are.

Why it hurts validation
    Colours mean something to the network; OpenCV reads BGR where PIL reads RGB.

What else looks like this
    A network that has hardly been trained gives other answers to anything new, and some of them are right by chance: it
    must beat a guess. A few batches have no spread to compare with. Another light source shifts all colours, but then
    reversing the channels does not raise the accuracy.

Remedy
    Convert with `cv2.cvtColor(image, cv2.COLOR_BGR2RGB)`, or read both phases with the same library.

Source
    ultralytics issue 5962; OpenCV documentation of imread.
"""

from __future__ import annotations

import numpy as np
from scipy.special import stdtrit

from valgap.checks.shared.progress import beats_guess, has_learnt
from valgap.checks.shared.rescored import between
from valgap.types import Case, Check, Clear, Evidence, Finding, InputStats, Intervention, NotApplicable

P_VALUE = 0.01
# Distance in units of the batches' own spread: straight must lie outside it, reversed inside.
SPREAD = 3.0
# Reversed channels bring the colours this many times nearer: no other light or camera does. Between train and val as they
# are, the two distances were 0.3 and 4.1 (clothing_mini), 0.8 and 9.0 (hymenoptera_256), 0.7 and 29.2 (sign_digits_mini), 2.6
# and 0.8 (cifar10n_mini) in 64-pixel batches of 32; with val's channels reversed the other way round.
DECISIVE = 8.0


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Compare channel means straight and reversed, and the re-score with reversed channels."""
    train, val = case.run.last_train, case.run.last_validation
    if train is None or val is None or train.inputs is None or val.inputs is None:
        return NotApplicable("image batches of a training and a validation pass")
    if len(train.inputs.mean) != 3 or len(val.inputs.mean) != 3:
        return NotApplicable("three colour channels in both phases")
    straight, turned = distances(train.inputs, val.inputs)
    facts = (
        Evidence("distance of val's colour balance from train's, in spreads of batches", straight, 0.0),
        Evidence("the same with val's channels reversed", turned, None),
    )
    gain = between(case.run, "val_flipped_channels")
    measured: tuple[Evidence, ...] = ()
    if gain is not None:
        measured = (gain.evidence("val accuracy gained by reversing the channels"),)
    table = case.run.closing.rescores.get("val_flipped_channels") if case.run.closing is not None else None
    able = table is not None and beats_guess(table) and has_learnt(case.run)
    # Colours that fit as they are, and are far off when reversed, are stronger evidence than a gain on some hundred images.
    fits = turned > max(SPREAD, DECISIVE * straight)
    significant = gain is not None and gain.value > 0 and gain.p_value < P_VALUE and able and not fits
    looks_swapped = straight > SPREAD and turned < straight / 2
    # The re-score may be too small a sample for so small an effect, or cannot be made where images come one by one and without
    # a loader; the colours are not. A loss speaks against it all the same.
    decisive = straight > max(SPREAD, DECISIVE * turned) and (gain is None or gain.value >= 0)
    if not significant and not decisive and not (looks_swapped and gain is None):
        return Clear("the channels of both phases have the same order", (*facts, *measured))
    sure = 0.9 if gain is not None else 0.75
    confidence = 0.95 if significant and looks_swapped else sure if decisive else 0.75 if significant else 0.4
    return Finding(
        summary="the colour channels of validation images are reversed (BGR against RGB)",
        severity_points=100 * gain.value if gain is not None else 0.0,
        confidence=confidence,
        evidence=(*measured, *facts),
        remedy="read validation images in the channel order of training (cv2.COLOR_BGR2RGB after cv2.imread)",
    )


def distances(train: InputStats, val: InputStats) -> tuple[float, float]:
    """(straight, reversed): distance of the colour balance (channel means less their average) in batch spreads."""

    def balance(rows: np.ndarray) -> np.ndarray:
        return np.asarray(rows - rows.mean(axis=-1, keepdims=True))

    # SPREAD was set on four batches, the first that are looked at. The spread of fewer is known less well (Student's t), of one
    # not at all.
    n = len(train.batch_means)
    wider = max(1.0, float(stdtrit(n - 1, 0.975) / stdtrit(3, 0.975))) if n > 1 else float("inf")
    spread = wider * (float(np.sqrt((balance(train.batch_means).std(axis=0) ** 2).sum())) + 1e-3)
    ours, theirs = balance(train.mean), balance(val.mean)
    return (
        float(np.linalg.norm(ours - theirs)) / spread,
        float(np.linalg.norm(ours - theirs[::-1])) / spread,
    )


def treat(case: Case, finding: Finding) -> Intervention:
    """The channels of validation images in reverse order."""
    return Intervention("flip_channels", {"phase": "validation"})


CHECK = Check(code="PRE203", name="channel_order_mismatch", stage="read_val", detect=detect, doc=__doc__ or "", treat=treat)
