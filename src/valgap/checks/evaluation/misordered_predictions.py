"""Predictions are compared with the labels of other images.

What it looks for
    A printed validation accuracy that equals what the recorded predictions give when they are compared with labels in another
    order: those of the data set as it lies (while the loader shuffles), or those of another pass. And samples that a pass saw
    twice, or not at all.

Why it hurts validation
    The model is fine; its score is near chance, because answer and label belong to different images.

What else looks like this
    A permuted class map (DAT102) is wrong in every order. A wrong formula (EVA503) fits no other order. A random model is
    near chance by its own labels as well.

Remedy
    Collect predictions and labels in the same loop over the loader, or set `shuffle=False` for validation.

Source
    keras issue 10014; quadra pull request 116; PyTorch examples pull request 980 (padded samples).
"""

from __future__ import annotations

import numpy as np

from valgap.checks.shared.printed_accuracy import told
from valgap.types import Case, Check, Clear, Evidence, Finding, NotApplicable, Pass, RunRecord

# Printed and true accuracy must differ by this much before another order is looked for.
NOTABLE_POINTS = 5.0
# Two accuracies of so few images agree by accident: the other order's must be nearer than this many standard errors to be chance.
CHANCE_Z = 3.0
REPEATED_SHARE = 0.01


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Score the predictions under other orders of the labels and match what was printed."""
    run = case.run
    if not any(p.samples.labelled.any() for p in run.of_phase("validation")):
        return NotApplicable("a labelled validation pass")
    last = run.last_validation
    assert last is not None
    twice, missing = repeated(run, last)
    facts = [Evidence("validation samples seen more than once", twice, 0, "samples", len(last.samples))]
    printed = [t for members in told(run, "accuracy").values() for t in members if len(t.passes) == 1 == len(t.readings)]
    for number in sorted(printed, key=lambda t: -t.number.after_pass):
        (one,) = number.passes
        ((value, tolerance),) = number.readings
        true = one.samples.accuracy
        if true - value < NOTABLE_POINTS / 100:
            continue
        for words, other in other_orders(run, one).items():
            if abs(other - value) <= tolerance + 1e-9:
                facts.insert(0, Evidence(f"accuracy against {words}, as printed", other, true, "", len(one.samples)))
                return _finding(f"the printed accuracy {value:.1%} compares with {words}; it is {true:.1%}", true - value, facts)
        expected, error = independent(one)
        if shuffled(run, one) and abs(value - expected) <= CHANCE_Z * error and true - value > 2 * CHANCE_Z * error:
            facts.insert(0, Evidence("printed accuracy, and that of unrelated answers and labels", value, expected))
            return _finding(
                f"the printed accuracy {value:.1%} is that of unrelated labels; it is {true:.1%}", true - value, facts, 0.75
            )
    if twice > REPEATED_SHARE * len(last.samples):
        facts.append(Evidence("validation samples never seen", missing, 0, "samples"))
        return Finding(
            summary=f"{twice} validation samples were seen more than once",
            severity_points=0.0,
            confidence=0.45,
            evidence=tuple(facts),
            remedy="score each validation image once; with a distributed sampler drop the padded samples",
        )
    return Clear("answers and labels belong to the same images, each seen once", tuple(facts))


def other_orders(run: RunRecord, one: Pass) -> dict[str, float]:
    """Accuracies of the predictions in the order in which they came, against labels in other orders."""
    found: dict[str, float] = {}
    prediction, target = one.samples.prediction, one.samples.target
    info = run.datasets.get(one.dataset)
    if info is not None and info.targets is not None and len(info.targets) == len(prediction):
        found["the labels in the data set's own order"] = float((prediction == info.targets).mean())
    for other in run.passes:
        if other is one or other.dataset != one.dataset or other.phase == "train" or len(other.samples) != len(prediction):
            continue
        if not np.array_equal(other.samples.target, target):
            found[f"the labels of another pass (number {other.index})"] = float((prediction == other.samples.target).mean())
    return {k: v for k, v in found.items() if abs(v - one.samples.accuracy) > 1e-9}


def independent(one: Pass) -> tuple[float, float]:
    """(expected accuracy of answers and labels that have nothing to do with each other, its standard error)."""
    classes = int(max(one.samples.prediction.max(), one.samples.target.max())) + 1
    shares = [np.bincount(v[v >= 0], minlength=classes) / max(1, len(v)) for v in (one.samples.prediction, one.samples.target)]
    value = float((shares[0] * shares[1]).sum())
    return value, float(np.sqrt(value * (1 - value) / max(1, len(one.samples))))


def shuffled(run: RunRecord, one: Pass) -> bool:
    """Whether the pass's loader draws in random order."""
    loader = run.loaders.get(one.loader)
    return loader is not None and loader.shuffled is True


def repeated(run: RunRecord, one: Pass) -> tuple[int, int]:
    """(samples seen again, samples of the data set never seen), where they are known by name."""
    known = one.samples.sample[one.samples.sample >= 0]
    info = run.datasets.get(one.dataset)
    seen = len(np.unique(known))
    # A data set may list the same image twice itself; that is no fault of the pass.
    listed = len(np.unique(info.sample)) if info is not None and info.sample is not None else seen
    own = (info.size - listed) if info is not None and info.size > 0 and info.sample is not None else 0
    return max(0, len(known) - seen - own), max(0, listed - seen)


def _finding(summary: str, lost: float, facts: list[Evidence], confidence: float = 0.95) -> Finding:
    return Finding(
        summary=summary,
        severity_points=100 * lost,
        confidence=confidence,
        evidence=tuple(facts),
        remedy="take predictions and labels from the same loop, or do not shuffle the validation loader",
    )


CHECK = Check(code="EVA509", name="misordered_predictions", stage="measure", detect=detect, doc=__doc__ or "")
