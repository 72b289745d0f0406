"""Training went on after validation was at its best.

What it looks for
    The accuracy of the best epochs against the last ones (a third of all, averaged, so that a curve that jumps does not
    count as one that fell), on the same validation images. The best are chosen by one half of the images and scored on the
    other. The training images must be fitted better at the end than at the best epoch, and the epochs after the best must lie
    below it together.

Why it hurts validation
    The network goes on memorising its training images after it has learnt what they share. What it then learns holds for them
    alone, and validation falls.

What else looks like this
    A run of a few epochs that has not learnt its training images yet: its validation jumps, and nothing was overtrained.
    Wrong training labels (DAT104): they are learnt late, so the fall comes when they are memorised; the share of training
    images that were answered otherwise at the best epoch and obeyed at the end is shown. A rising validation loss with steady
    accuracy is overconfidence (EVA505). A jumping curve whose last epoch happens to be low is a rate too high (TRN401).

Remedy
    Stop when validation has not improved for some epochs and keep the weights of the best one; more images, augmentation and
    regularisation move that point up.

Source
    Prechelt 1998 (early stopping); arXiv 1611.03530 (memorisation).
"""

from __future__ import annotations

import numpy as np

from valgap.checks.shared.progress import MIN_EPOCHS, Course, course, lasting_fall, loss_rise, train_rescored
from valgap.stats import wilson_interval
from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, NotApplicable, RunRecord

# A fall below this many points is not worth a finding, whatever its p-value.
NOTABLE_POINTS = 2.0
SURE_P, LIKELY_P = 0.01, 0.05
# Sound runs jump by a few points from epoch to epoch: the epochs after the best must keep this share of the fall.
LASTING_SHARE = 0.5
# How much a curve jumps from epoch to epoch cannot be seen in fewer: a fall is a hint then.
SEEN_TO_JUMP = 5
SAME = 0.01  # epochs this close are equally good


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Compare the best epoch with the last, and what training did between them."""
    seen = course(case.run)
    if seen is None or len(seen.passes) < MIN_EPOCHS:
        return NotApplicable(f"at least {MIN_EPOCHS} labelled validation passes over the same images")
    drop, (rise, error) = lasting_fall(seen), loss_rise(seen)
    facts = [
        drop.evidence(),
        Evidence("val loss, last epoch minus its lowest", rise, 0.0, "nats", drop.n, rise - 1.96 * error, rise + 1.96 * error),
        Evidence("train accuracy as it ran, last epoch and best epoch", seen.train_accuracy[-1], seen.train_accuracy[seen.best]),
    ]
    if not by_heart(case.run, seen):
        return Clear("training images are not answered better than validation images: nothing was learnt by heart", tuple(facts))
    if not went_on(seen):
        return Clear("validation did not fall while training went on", tuple(facts))
    facts.append(Evidence("training images learnt only after the best epoch", late_share(case.run, seen), "few", ""))
    notable = 100 * drop.value >= NOTABLE_POINTS
    confidence = 0.0
    if notable and lasts(seen, drop.value) and len(seen.passes) >= SEEN_TO_JUMP:
        confidence = 0.8 if drop.p_value < SURE_P else 0.6 if drop.p_value < LIKELY_P else 0.0
    if not confidence and drop.value > 0 and rise > 3 * error:
        confidence = 0.3
    if not confidence:
        return Clear("validation did not fall after its best epoch beyond noise", tuple(facts))
    best = seen.passes[seen.best]
    return Finding(
        summary=f"val accuracy fell from {seen.accuracy[seen.best]:.1%} (epoch {best.epoch}) to {seen.accuracy[-1]:.1%}",
        severity_points=max(0.0, 100 * drop.value),
        confidence=confidence,
        evidence=tuple(facts),
        remedy=f"stop at the best epoch (here {best.epoch}) and keep its weights, not those of the last one",
    )


def went_on(seen: Course) -> bool:
    """Whether the training images were fitted better at the end than at the best epoch."""
    first, last = seen.train_loss[seen.best], seen.train_loss[-1]
    return seen.best < len(seen.passes) - 1 and (bool(last < first) or bool(np.isnan(first)))


def by_heart(run: RunRecord, seen: Course) -> bool:
    """Whether the training images are answered better at the end than validation images, as training ran or re-scored."""
    known = [v for v in (float(seen.train_accuracy[-1]), train_rescored(run)) if np.isfinite(v)]
    return not known or max(known) > wilson_interval(int(seen.right[-1].sum()), seen.right.shape[1])[1]


def lasts(seen: Course, drop: float) -> bool:
    """Whether the epochs after the best one lie below it together, and no such fall was made up for before."""
    curve = seen.accuracy
    after = curve[seen.best + 1 :]
    high = int(np.flatnonzero(curve >= curve[seen.best] - SAME)[-1])
    recovered = float((np.maximum.accumulate(curve[: high + 1]) - curve[: high + 1]).max())
    return bool(curve[seen.best] - after.mean() >= LASTING_SHARE * drop) and recovered < LASTING_SHARE * drop


def late_share(run: RunRecord, seen: Course) -> float:
    """Share of training images that were wrong in the best epoch and right in the last, as they ran."""
    trained = {p.epoch + 1: p.samples for p in run.of_phase("train")}
    first, last = (trained.get(seen.passes[i].epoch) for i in (seen.best, -1))
    if first is None or last is None:
        return float("nan")
    wrong = {int(s) for s in first.sample[(first.prediction != first.target) & (first.sample >= 0)]}
    now = {int(s) for s in last.sample[(last.prediction == last.target) & (last.sample >= 0)]}
    return len(wrong & now) / max(1, len(last))


def treat(case: Case, finding: Finding) -> Intervention:
    """The best epoch's answers scored, chosen by the other half of the images; nothing is trained."""
    return Intervention("score_best_epoch")


CHECK = Check(
    code="TRN404",
    name="overtraining",
    stage="choose",
    detect=detect,
    doc=__doc__ or "",
    treat=treat,
    needs_whole_run="whether validation falls again later",
)
