"""The choice of the epoch: the one that validates best, chosen by one half of the images and scored by the other.

Source: cross-fitting, so that the best of many epochs does not flatter itself.
"""

from __future__ import annotations

import numpy as np

from valgap.reference.probing import MIN_IMAGES, Answers, gained, likely_above
from valgap.stats import best_row_cross_fitted
from valgap.types import Compared, Evidence, RunRecord

LEAST_POINTS = 2.0
SURE = 0.9
# How much a curve jumps from epoch to epoch cannot be seen in fewer.
MIN_EPOCHS = 5
# Times its usual jump that a curve must lie below its best at the end.
JUMPS = 2.0


def compare(run: RunRecord) -> Compared:
    """The weights that the run ends with against the best epoch's."""
    last = run.last_validation
    if last is None:
        return Compared("unknown", "", missing="a validation pass")
    passes = [p for p in run.of_phase("validation") if p.dataset == last.dataset and p.samples.answered]
    tables = [{int(s): i for i, s in enumerate(p.samples.sample) if s >= 0} for p in passes]
    both = sorted(set.intersection(*(set(t) for t in tables))) if tables else []
    if len(passes) < MIN_EPOCHS or len(both) < MIN_IMAGES:
        return Compared("unknown", "", missing=f"{MIN_EPOCHS} validations over the same {MIN_IMAGES} images")
    right, loss = [], []
    for one, place in zip(passes, tables, strict=True):
        rows = [place[s] for s in both]
        right.append(one.samples.prediction[rows] == one.samples.target[rows])
        loss.append(np.minimum(np.nan_to_num(one.samples.loss[rows], nan=100.0), 100.0))
    matrix, losses = np.array(right), np.array(loss, np.float64)
    reported = Answers(matrix[-1], losses[-1])
    halves = np.arange(len(both)) % 2
    chosen = np.zeros(len(both))
    for half in (0, 1):
        epoch = int(matrix[:, halves != half].mean(1).argmax())
        chosen[halves == half] = losses[epoch, halves == half]
    points, nats = gained(reported, Answers(best_row_cross_fitted(matrix).astype(bool), chosen))
    best = reported.accuracy + points.value / 100
    told_of = (
        Evidence("val accuracy of the best epoch, chosen on the other half", best, reported.accuracy, "", len(both)),
        Evidence("validations", len(passes), None, "passes"),
    )  # fmt: skip
    jump = 100 * float(np.median(np.abs(np.diff(matrix.mean(1)))))
    usual = Evidence("usual change of val accuracy from one epoch to the next", jump, None, "points")
    facts = (*told_of, usual)
    confidence = SURE * likely_above(points, LEAST_POINTS)
    if confidence < 0.5 or points.value < JUMPS * jump:
        return Compared("sound", "no other epoch is better beyond noise", points, nats, confidence, facts)
    told = f"an earlier epoch is {points.value:.0f} points better than the weights that the run ends with"
    return Compared(
        "at fault", told, points, nats, confidence, facts, "keep a copy of the best epoch's weights, and load it at the end"
    )
