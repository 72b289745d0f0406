"""The choice of the epoch: the one that validates best, chosen by one half of the images and scored by the other.

A last epoch that lies low by chance is no wrong choice: the epochs after the best one must lie below it together, and no such
fall may have been made up for before.

Source: cross-fitting, so that the best of many epochs does not flatter itself.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from valgap.checks.evaluation.last_not_best_checkpoint import another_epoch_loaded
from valgap.checks.shared.early_end import broke_off, stopped_on_its_way
from valgap.checks.shared.progress import course, head_rate, usual_rate
from valgap.checks.shared.seen_part import given_epochs, trained
from valgap.checks.training.overtraining import SEEN_TO_JUMP, lasts
from valgap.reference.probing import MIN_IMAGES, Answers, gained, likely_above
from valgap.stats import rows_cross_fitted
from valgap.types import MAX_LOSS, Compared, Evidence, Intervention, RunRecord, Untreatable

LEAST_POINTS = 2.0
# A training loss that fell by this share in the last epoch goes on falling; below this share of a usual rate, the rate is why.
FELL = 0.05
LOW = 0.1
SURE = 0.9


def compare(run: RunRecord, learned: Compared) -> Compared:
    """The weights that the run ends with against the best epoch's; ``learned``: what they leave to a probe."""
    if run.shortened is not None:
        return learned
    if learned.verdict == "at fault" and broke_off(run):
        given = given_epochs(run)
        told = f"training ends after {len(trained(run))} of {given[0] if given else 0} epochs: {learned.summary}"
        return replace(learned, summary=told, remedy="let it train all the epochs that it was given", kind="early")
    if learned.verdict == "at fault" and (still_improving(run) or stopped_on_its_way(run)):
        told = f"training ends while it still gets better: {learned.summary}"
        return replace(
            learned, summary=told, remedy="train longer, and let early stopping wait longer than validation jumps", kind="early"
        )
    return _best_epoch(run)


def treatment(run: RunRecord) -> Intervention | Untreatable:
    """The answers of the best epoch."""
    if len(run.of_phase("validation")) < 2:
        return Untreatable("there is one epoch to choose from")
    return Intervention("score_best_epoch")


def still_improving(run: RunRecord) -> bool:
    """Whether the last epoch is the best in accuracy and loss, its training loss fell on, and the rate is no reason for it."""
    seen = course(run)
    if seen is None or len(seen.passes) < SEEN_TO_JUMP or not np.isfinite(seen.train_loss[-2:]).all():
        return False  # a trial of few epochs is no training that ended too soon
    last = seen.best == len(seen.passes) - 1 and int(seen.mean_loss.argmin()) == len(seen.passes) - 1
    fell = seen.train_loss[-1] < (1 - FELL) * seen.train_loss[-2]
    usual = usual_rate(run)
    return bool(last and fell and not head_rate(run) < LOW * usual)


def _best_epoch(run: RunRecord) -> Compared:
    seen = course(run)
    if seen is None or len(seen.passes) < SEEN_TO_JUMP or seen.right.shape[1] < MIN_IMAGES:
        return Compared("unknown", "", missing=f"{SEEN_TO_JUMP} validations over the same {MIN_IMAGES} images")
    loss = np.clip(np.nan_to_num(seen.loss, nan=MAX_LOSS), 0.0, MAX_LOSS)
    epochs, each = rows_cross_fitted(seen.right), np.arange(loss.shape[1])
    reported = Answers(seen.right[-1], loss[-1])
    chosen = Answers(seen.right[epochs, each].astype(bool), loss[epochs, each])
    points, nats = gained(reported, chosen)
    best = reported.accuracy + points.value / 100
    facts = (
        Evidence("val accuracy of the best epoch, chosen on the other half", best, reported.accuracy, "", len(each)),
        Evidence("validations", len(seen.passes), None, "passes"),
    )
    confidence = SURE * likely_above(points, LEAST_POINTS)
    loaded = another_epoch_loaded(run, seen)
    if confidence < 0.5 or not (lasts(seen, points.value / 100) or loaded):
        return Compared("sound", "no other epoch is better beyond noise", points, nats, min(confidence, 0.4), facts)
    told = f"an earlier epoch is {points.value:.0f} points better than the weights that the run ends with"
    remedy = "keep a copy of the best epoch's weights, and load it at the end"
    return Compared("at fault", told, points, nats, confidence, facts, remedy, kind="loaded" if loaded else "")
