"""Validation images are changed at random.

What it looks for
    The same validation sample reaching the model as another tensor in the next epoch: each sample's input is
    recorded as a fingerprint that is equal for equal tensors. With one validation pass only, random steps in the transform
    of the validation data set.

Why it hurts validation
    The result is noisy, and usually lower: crops lose the object, and each epoch measures something else.

What else looks like this
    Test-time augmentation averages several views on purpose. Noise of a sensor simulation may be meant so.

Remedy
    Give validation its own transform: resize, centre crop, normalise.

Source
    image-classification-codebase issue 4; torchvision's reference presets.
"""

from __future__ import annotations

import numpy as np

from valgap.checks.shared.rescored import between
from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, NotApplicable, Pass

# Equal tensors give fingerprints equal to rounding; the smallest augmentation in use (one grey level of brightness)
# changes them a hundred times more.
RELATIVE = 1e-4
CHANGED_SHARE = 0.2
UNMEASURED_POINTS, MOST_POINTS = 2.0, 90.0


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Compare fingerprints of the same samples between validation passes."""
    passes = [p for p in case.run.of_phase("validation") if len(p.samples)]
    if not passes:
        return NotApplicable("a validation pass")
    dataset = case.run.datasets.get(passes[-1].dataset)
    random = [s.name for s in dataset.transform or () if s.random] if dataset is not None else []
    share, n = changed_share(passes)
    facts: tuple[Evidence, ...] = ()
    if n:
        facts = (Evidence("validation images that changed between two passes", share, 0.0, "", n),)
    if n and share < CHANGED_SHARE:
        return Clear("every validation image reached the model unchanged each time", facts)
    if not n and not random:
        if dataset is None or dataset.transform is None:
            return NotApplicable("two validation passes over known samples, or the validation transform")
        return Clear("the validation transform has no random step")
    if random:
        facts = (*facts, Evidence("random steps in the validation transform", ", ".join(random), "none"))
    gain = between(case.run, "val_fixed")
    cost = Evidence("cost (not re-scored): assumed", UNMEASURED_POINTS, 0.0, "points")
    if gain is not None:
        cost = gain.evidence("val accuracy gained with a fixed transform")
    return Finding(
        summary="validation images are augmented at random" + (f" ({', '.join(random)})" if random else ""),
        severity_points=100 * gain.value if gain is not None else UNMEASURED_POINTS,
        confidence=0.97 if n else 0.9,
        evidence=(cost, *facts),
        most_points=0.0 if gain is not None else MOST_POINTS,
        remedy="give the validation data set its own transform without random steps: resize, centre crop, normalise",
    )


def changed_share(passes: list[Pass]) -> tuple[float, int]:
    """(share of samples whose fingerprint differs between the last two passes over the same data, n)."""
    last = passes[-1]
    earlier = [p for p in passes[:-1] if p.dataset == last.dataset]
    if not earlier:
        return 0.0, 0
    old = {int(s): float(f) for s, f in zip(earlier[-1].samples.sample, earlier[-1].samples.fingerprint, strict=True) if s >= 0}
    pairs = [(old[int(s)], float(f)) for s, f in zip(last.samples.sample, last.samples.fingerprint, strict=True) if int(s) in old]
    if not pairs:
        return 0.0, 0
    values = np.array(pairs)
    scale = np.maximum(np.abs(values).max(axis=1), 1.0)
    return float((np.abs(values[:, 0] - values[:, 1]) > RELATIVE * scale).mean()), len(pairs)


def treat(case: Case, finding: Finding) -> Intervention:
    """The random steps taken out of the validation transform."""
    return Intervention("fixed_transform", {"phase": "validation"})


CHECK = Check(code="PRE204", name="augmented_validation", stage="read_val", detect=detect, doc=__doc__ or "", treat=treat)
