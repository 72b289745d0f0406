"""Treatments of the score alone: which validation samples count, and under which label. The model is not run again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from valgap.experiments.arm import ArmSpec
from valgap.experiments.arm_result import ArmResult
from valgap.stats import rows_cross_fitted
from valgap.types import Effect, Intervention, Measured, SampleTable

SCORES = ("score_renamed", "score_without", "score_best_epoch", "see_again")
# What other training changes as well: recorded weights do not show it.
TRAINED_SCORES = ("score_best_epoch", "see_again")
# Changes of validation images alone: the finished model is scored again under them, and nothing is trained.
RESCORES = ("affine", "flip_channels", "resize", "fixed_transform", "weights_transform")
# Changes of single samples, which know them by their position: what validates is run again, on the finished weights.
BY_SAMPLE = ("read_soundly", "pair_by_file")
# The finished model called by us, in eval mode, with nothing between it and the score: what the program makes of the same
# weights is held against it.
PLAIN = Intervention("plain_forward")
PLACEBO_DRAWS = 2_000
# The finished model must give this share of the answers of the program's last validation, else arms are run in full.
SAME_ANSWERS = 0.98


def is_score(intervention: Intervention) -> bool:
    """Whether it changes the score and not the program."""
    return intervention.name in SCORES


def is_arguments(intervention: Intervention) -> bool:
    """Whether it changes an argument that the program is called with, and nothing inside it."""
    return intervention.name == "arguments"


def called_with(spec: ArmSpec, treatment: Intervention) -> ArmSpec:
    """The arm with one argument of its call exchanged, its length stretched as that asks; unchanged for other treatments."""
    if not is_arguments(treatment):
        return spec
    argv = list(spec.argv)
    place, factor = treatment.settings["place"], treatment.settings["factor"]
    assert isinstance(place, int) and isinstance(factor, int)
    argv[place] = str(treatment.settings["value"])
    return replace(spec, argv=argv, epochs=spec.epochs * factor)


def is_rescore(intervention: Intervention) -> bool:
    """Whether a finished model can be scored under it."""
    return intervention == PLAIN or (intervention.name in RESCORES and intervention.settings.get("phase") == "validation")


def is_evaluation(intervention: Intervention) -> bool:
    """Whether recorded weights show its effect: nothing about the training changes."""
    in_eval_mode = intervention.name == "eval_mode" and intervention.settings.get("phase") == "validation"
    kept = is_score(intervention) and intervention.name not in TRAINED_SCORES  # earlier epochs, and other answers
    by_sample = intervention.name in BY_SAMPLE and intervention.settings.get("phase") == "validation"
    return kept or is_rescore(intervention) or in_eval_mode or by_sample


def misleads_probe(intervention: Intervention) -> bool:
    """Whether the removed fault spoils the probe's own validation: the probe saw the same images under the same labels."""
    by_sample = intervention.name in BY_SAMPLE and intervention.settings.get("phase") != "train"
    images = is_rescore(intervention) and intervention != PLAIN
    return images or by_sample or (is_score(intervention) and intervention.name not in TRAINED_SCORES)


def rescored(control: Sequence[ArmResult], place: int, random: bool) -> tuple[list[ArmResult], list[ArmResult]] | None:
    """(as the program scored, under the re-score number ``place``) of every control arm; None where one cannot tell.

    Not where the finished model does not repeat the program's last validation: it may hold other weights by then. What it
    must repeat are the answers, and where validation is ``random`` the accuracy within the noise of two draws.
    """
    own, under = [], []
    for arm in control:
        closing = arm.record.closing if arm.record is not None else None
        tables = closing.rescores if closing is not None else {}
        if "own" not in tables or f"under {place}" not in tables:
            return None
        first = replace(arm, samples=tables["own"])
        if not (same_accuracy(arm, first) if random else same_answers(arm, first) >= SAME_ANSWERS):
            return None
        own.append(first)
        under.append(replace(arm, samples=tables[f"under {place}"]))
    return own, under


def scored_plainly(arms: Sequence[ArmResult]) -> list[ArmResult] | None:
    """Each finished model's own answers to the samples that the program validated last; None where one does not tell."""
    plain = []
    for arm in arms:
        closing = arm.record.closing if arm.record is not None else None
        tables = closing.rescores if closing is not None else {}
        name = f"under {arm.spec.rescore.index(PLAIN)}" if PLAIN in arm.spec.rescore else ""
        if name not in tables:
            return None
        plain.append(replace(arm, samples=tables[name]))
    return plain


def same_answers(arm: ArmResult, other: ArmResult) -> float:
    """Share of the arm's validation samples that the other answers in the same way, 0..1."""
    assert arm.samples is not None and other.samples is not None
    first = dict(zip(arm.placed(), arm.samples.prediction.tolist(), strict=True))
    second = dict(zip(other.placed(), other.samples.prediction.tolist(), strict=True))
    return float(np.mean([second.get(k) == v for k, v in first.items()])) if first else 0.0


def same_accuracy(arm: ArmResult, other: ArmResult) -> bool:
    mean, n = (arm.accuracy + other.accuracy) / 2, max(1, len(arm.correct()))
    return abs(arm.accuracy - other.accuracy) <= 3.0 * math.sqrt(2 * max(mean * (1 - mean), 1e-4) / n)


def renamed(arm: ArmResult, intervention: Intervention) -> ArmResult:
    """The same arm with its validation targets renamed."""
    mapping = intervention.settings["mapping"]
    assert isinstance(mapping, dict) and arm.samples is not None
    target = np.array([mapping.get(str(int(t)), -2) if t >= 0 else -1 for t in arm.samples.target], np.int32)
    # A class that train never had can never be right; -2 is no prediction, but the sample must still count.
    prediction = np.where(target == -2, -3, arm.samples.prediction)
    target = np.where(target == -2, 2**30, target)
    # Of other labels than the recorded one, the loss is known of the answer that was given: the margin leads there.
    moved, answered = target != arm.samples.target, target == prediction
    loss = np.where(moved & answered, arm.samples.loss + np.minimum(arm.samples.margin, 0.0), arm.samples.loss)
    known = bool((~moved | answered | (target < 0)).all())
    table = replace(arm.samples, target=target, prediction=prediction, loss=loss.astype(np.float32))
    return replace(arm, samples=table, loss_known=arm.loss_known and known)


def best_epoch(arm: ArmResult) -> ArmResult:
    """The same arm with the answers of its best epoch, which each half of the images takes from what the other half chose."""
    assert arm.samples is not None and arm.record is not None
    last = arm.samples
    passes = [p.samples for p in arm.record.passes if p.dataset in arm.spec.validation and p.samples.labelled.any()]
    tables = [t for t in (_in_order_of(t, last) for t in passes) if t is not None]
    rows = rows_cross_fitted(np.array([t.prediction == t.target for t in tables]))
    each = np.arange(len(rows))
    prediction, loss, margin = (np.array([getattr(t, k) for t in tables])[rows, each] for k in ("prediction", "loss", "margin"))
    return replace(arm, samples=replace(last, prediction=prediction, loss=loss, margin=margin))


def _in_order_of(table: SampleTable, last: SampleTable) -> SampleTable | None:
    """The table's rows in the order of another one's samples; None where they hold other samples."""
    if len(table) != len(last):
        return None
    if np.array_equal(table.sample, last.sample):
        return table
    own, other = np.argsort(table.sample, kind="stable"), np.argsort(last.sample, kind="stable")
    if not np.array_equal(table.sample[own], last.sample[other]):
        return None
    place = np.empty(len(own), np.int64)
    place[other] = own
    columns = {k: getattr(table, k)[place] for k in ("prediction", "target", "loss", "margin")}
    return replace(table, **columns)


def scored_under(arm: ArmResult, intervention: Intervention) -> ArmResult:
    """The arm scored under a treatment that leaves all samples in."""
    return best_epoch(arm) if intervention.name == "score_best_epoch" else renamed(arm, intervention)


def leave_out(arm: ArmResult, names: Sequence[str]) -> ArmResult:
    """The same arm without these validation samples."""
    if arm.samples is None:
        return arm
    gone = set(names)
    keys = list(arm.placed())
    target = np.array([-1 if k in gone else t for k, t in zip(keys, arm.samples.target.tolist(), strict=True)], np.int32)
    return replace(arm, samples=replace(arm.samples, target=target))


def without(control: Sequence[ArmResult], names: Sequence[str], tried: int, seed: int = 0) -> tuple[Effect, float] | None:
    """(effect, placebo) of leaving ``names`` out, in points; the placebo leaves out as many at random.

    The interval bootstraps the validation samples; the p-value is the share of placebo draws that change the accuracy as
    much. None when nothing would be left, or nothing is left out.
    """
    rows = [arm.correct() for arm in control]
    every = sorted(set.intersection(*(set(r) for r in rows))) if rows else []
    right = np.array([[r[n] for n in every] for r in rows], np.float64).reshape(len(rows), len(every)).mean(0)
    drop = np.isin(every, list(names))
    if not drop.any() or drop.all():
        return None
    draw = np.random.default_rng(seed)
    value = _change(right, drop)
    placebo = np.array([_change(right, draw.permutation(drop)) for _ in range(PLACEBO_DRAWS)])
    picks = draw.integers(0, len(right), (PLACEBO_DRAWS, len(right)))
    boots = [_change(right[p], drop[p]) for p in picks if drop[p].any() and not drop[p].all()]
    low, high = np.percentile(boots, [2.5, 97.5])
    p_value = min(1.0, (1 + int((np.abs(placebo) >= abs(value)).sum())) / (1 + PLACEBO_DRAWS) * max(1, tried))
    fall = _fall(control, every, drop, picks)
    effect = Effect(100 * value, 100 * float(low), 100 * float(high), p_value, len(rows), len(every), fall)
    return effect, 100 * float(placebo.mean())


def _fall(
    control: Sequence[ArmResult], every: Sequence[str], drop: npt.NDArray[np.bool_], picks: npt.NDArray[np.int64]
) -> Measured | None:
    """By how many nats the mean loss falls without the dropped samples, with a bootstrap over ``picks`` of all of them."""
    losses = [arm.losses() for arm in control]
    loss = np.array([[r[n] for n in every] for r in losses], np.float64).mean(0)
    if not np.isfinite(loss).all():
        return None
    boots = [-_change(loss[p], drop[p]) for p in picks if drop[p].any() and not drop[p].all()]
    low, high = np.percentile(boots, [2.5, 97.5])
    return Measured(-_change(loss, drop), float(low), float(high))


def _change(values: npt.NDArray[np.float64], drop: npt.NDArray[np.bool_]) -> float:
    return float(values[~drop].mean() - values.mean())
