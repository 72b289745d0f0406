"""The reported training accuracy is not comparable with validation.

What it looks for
    The accuracy of the last training epoch as it ran (augmented images, training mode, weights changing), against the
    same images re-scored like validation after the end.

Why it hurts validation
    It does not. But the distance between the two curves is then no measure of overfitting.

What else looks like this
    A real gap: it stays after re-scoring.

Remedy
    Re-score a part of the training images in eval mode with the validation transform, and compare that with validation.

Source
    Keras FAQ, "Why is my training loss much higher than my testing loss?".
"""

from __future__ import annotations

from valgap.checks.shared.rescored import over_recorded
from valgap.stats import wilson_interval
from valgap.types import Case, Check, Clear, Evidence, Finding, NotApplicable

P_VALUE = 0.01


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Compare the training accuracy as it ran with the re-scored one, and both with validation."""
    train, val = case.run.last_train, case.run.last_validation
    rescored = case.run.closing.rescores.get("train_eval") if case.run.closing is not None else None
    if train is None or val is None or rescored is None or not rescored.labelled.any():
        return NotApplicable("the training images re-scored like validation (closing measurements)")
    gain = over_recorded(case.run, train, rescored)
    if gain is None:
        return NotApplicable("the identity of the training samples")
    reported, ours = train.samples.accuracy, val.samples.accuracy
    low, high = wilson_interval(int(val.samples.correct.sum()), len(val.samples.correct))
    facts = (
        Evidence("train accuracy re-scored like validation", rescored.accuracy, reported, "", len(rescored)),
        gain.evidence("difference on the same images"),
        Evidence("validation accuracy", ours, None, "", len(val.samples), low, high),
    )
    # It misleads when the reported value lies at or below validation, which looks like no gap, while the re-scored one
    # lies above validation's interval.
    hides = reported <= high and rescored.accuracy > high and gain.p_value < P_VALUE
    if not hides:
        return Clear("the training accuracy as reported tells the same story as the re-scored one", facts)
    return Finding(
        summary=f"train accuracy {reported:.1%} as it ran is {rescored.accuracy:.1%} re-scored like validation",
        severity_points=0.0,
        confidence=0.45,
        evidence=facts,
        remedy="compare validation with the training images re-scored in eval mode through the validation transform",
    )


CHECK = Check(
    code="EVA504",
    name="incomparable_train_metric",
    stage="measure",
    detect=detect,
    doc=__doc__ or "",
    needs_whole_run="the last training epoch",
)
