"""The loss: mean cross-entropy of logits and targets.

Where the logits' gradient was seen in training, it is held against that of the mean cross-entropy on the same logits and
targets: its direction (cosine) and its size (ratio). Class weights, smoothing and soft targets bend it a little, and on
purpose; so a gradient of another kind is a fault only where the finished network also stays behind what its features allow.

Source: the gradient of the softmax cross-entropy at the logits is (p - y) / N.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from valgap.checks.data.class_imbalance import MADE_OF_COUNTS, fall_of_weights
from valgap.checks.shared.freezing import holding, share
from valgap.checks.training.learning_rate_too_high import diverged
from valgap.reference import mixing
from valgap.reference.recalls import lack_of_recall
from valgap.types import Compared, Evidence, Intervention, LossParts, Measured, Pass, RunRecord, Untreatable

# Cosines below this are of another direction. At fresh logits class weights of 1 to 5 give .91, smoothing and focal losses 1
# (tests/reference/test_answers_and_updates.py computes them).
ALIKE = 0.8
# While no more than a share of the training images is answered rightly, smoothing by .3 and focal losses stay above .9, a hinge
# above .74.
LATER, MANY_ERRORS = 0.7, 0.8
# Below this no loss that is meant to classify lies: one against the others begins at .60, a squared error at .75. It is told also
# where nothing says what the training left undone.
AWAY, AWAY_CONFIDENCE = 0.4, 0.6
WRONG = 0.1  # a network that answers nearly all images rightly was taught well, whatever its loss
# Samples without gradient, though they are answered wrongly: ignored targets and masks.
SILENT = 0.03
# Nearly all of them: no gradient is left to learn from, whatever else is the matter.
MUTE, ALL, SURE = 0.9, 0.995, 0.95
# Of samples that the loss leaves out, so many must be of classes that it leaves out whole.
MOSTLY, UNHEARD_CONFIDENCE = 0.8, 0.8
IGNORED_REMEDY = "see which targets the loss ignores (ignore_index, masks, zero weights), and whether they are classes"
MUTE_REMEDY = "train with plain cross_entropy of raw logits: no clamp, rounding, detach or argmax between logits and loss"
# A sum over the batch is as many times as large as the batch; a factor up to this is one of taste.
LARGE = 6.0
# Weights that are made of the counts of classes filled at least so unevenly, and do not fall with them class by class.
UNEVEN, STRAYS, STRAYED_CONFIDENCE = 2.0, 0.5, 0.9
SLIGHTED = 0.75  # of the weight that the order of the counts would give a class
STRAYED_REMEDY = "order the weights by the class index: value_counts() sorts by frequency; use np.bincount(targets, minlength=C)"
# A part of what is minimised that is of no sample: it changes smoothly from step to step (second differences, of its first
# value), begins as such a share of the cross-entropy, and falls so many times as far as that does, within the first epoch.
SMOOTH, LARGE_PART, OUTRUNS, LEAST_FALL, LEAST_STEPS = 0.03, 0.25, 3.0, 0.05, 10
PENALTY_CONFIDENCE = 0.75
BESIDE_LOGITS = "a penalty on the weights does not pass the logits, where the reference would take its place"
PENALTY_REMEDY = (
    "weigh the penalty: the mean over parameters in the place of the sum, or a factor of a hundredth; watch both parts"
)
HARDLY = 1e-4  # change of the weights in a step, of their size


def compare(run: RunRecord, learned: Compared) -> Compared:
    """The gradient at the logits against the reference's; ``learned``: what the finished network leaves to a probe."""
    mixed = mixing.compare_loss(run)
    if mixed is not None:
        return mixed
    strayed = _strayed_weights(run)
    if strayed is not None:
        told, strayed_facts, points = strayed
        return Compared(
            "at fault", told, points, None, STRAYED_CONFIDENCE, strayed_facts, STRAYED_REMEDY, treatment=treatment(run)
        )
    run = _with_sense(run)
    passes = _with_gradients(run)
    seen = [p.gradient for p in passes if p.gradient is not None]
    if not seen:
        return Compared("unknown", "", missing="gradients at the logits, and hard targets")
    if _soft(passes[0]):
        return Compared("unknown", "", missing="hard targets: soft ones are meant to bend the loss")
    cosine, ratio = _direction(passes), float(np.median([g.ratio for g in seen]))
    size = float(np.median(np.concatenate([p.batch_sizes for p in passes])))
    batches = seen[0].batches
    facts: tuple[Evidence, ...] = (
        Evidence("gradient at the logits against that of mean cross-entropy: cosine", cosine, 1.0, "", batches),
        Evidence("gradient at the logits against that of mean cross-entropy: ratio", ratio, 1.0, "", batches),
    )
    silent = float(np.mean([g.silent for g in seen]))
    if silent >= SILENT:
        facts = (*facts, Evidence("samples that the loss leaves out, of those not answered right", silent, 0.0, "", batches))
    bent, large = cosine < ALIKE, ratio > LARGE
    nats = overconfidence(run)
    if np.median([g.over_batch for g in seen]) > 0.5:
        points = learned.points if learned.verdict == "at fault" else None
        told = "the loss is normalised over the batch, not over the classes"
        remedy = "take softmax or log_softmax over the classes: dim=1, or dim=-1"
        return Compared("at fault", told, points, nats, SURE, facts, remedy, treatment=treatment(run))
    penalty = _penalty(run)
    if penalty is not None and not bent and silent < SILENT:
        points = learned.points if learned.verdict == "at fault" else None
        told = "the training minimises a penalty on the weights before it learns the images"
        every = (*facts, *penalty)
        return Compared(
            "at fault", told, points, nats, PENALTY_CONFIDENCE, every, PENALTY_REMEDY, treatment=Untreatable(BESIDE_LOGITS)
        )
    if not bent and not large and silent < SILENT:
        told = "the loss pulls the logits as mean cross-entropy does"
        told += f"; {nats.value:.2f} nats of val loss are overconfidence" if nats is not None and nats.low > 0 else ""
        return Compared("sound", told, nats=nats, evidence=facts)
    summed = False
    if large:
        summed = abs(np.log(ratio / size)) < np.log(1.5)
        told = f"the loss pulls at the logits {ratio:.0f} times as hard as the mean over the batch"
        told += ": it is a sum" if summed else ""
        remedy = "take the mean over the batch, or divide the learning rate by the batch size"
    elif not bent:
        told = f"the loss leaves out {silent:.0%} of the samples"
        remedy = IGNORED_REMEDY
    else:
        told = f"the loss pulls the logits elsewhere than cross-entropy does (cosine {cosine:.2f})"
        remedy = "train with plain cross_entropy of raw logits and class indices, and add weights or smoothing one at a time"
    if silent >= MUTE:
        told, remedy = f"the loss leaves out {silent:.0%} of the samples", "train on the mean over all samples of a batch"
        if silent >= ALL:
            told, remedy = "the loss gives no gradient: it does not depend on the logits, or not where they are", MUTE_REMEDY
        points, own = learned.points if learned.verdict == "at fault" else None, treatment(run)
        return Compared("at fault", told, points, nats, SURE, facts, remedy, kind="mute", treatment=own)
    unheard = float(np.median([g.unheard for g in seen]))
    if learned.verdict == "unknown" and unheard >= max(SILENT, MOSTLY * silent):
        # A loss that leaves out what is easy does so in every class.
        told, remedy = f"the loss leaves out whole classes, {unheard:.0%} of the samples", IGNORED_REMEDY
        return Compared("at fault", told, None, nats, UNHEARD_CONFIDENCE, facts, remedy, treatment=treatment(run))
    kind = "summed" if summed else "" if large or not bent else "bent"
    # What a probe makes of features that this loss has shaped is no measure of what another would have made of them.
    blind = learned.verdict == "unknown" or (learned.verdict == "sound" and _features_learnt(run) and _wrong(run) > WRONG)
    if blind and cosine < AWAY:
        return Compared("at fault", told, None, nats, AWAY_CONFIDENCE, facts, remedy, kind=kind, treatment=treatment(run))
    if run.shortened is not None and summed and diverged(run):
        # So short a run leaves nothing to compare with a probe; that its first steps throw the weights away says enough.
        return Compared("at fault", told, None, nats, SURE, facts, remedy, kind=kind, treatment=treatment(run))
    if learned.verdict != "at fault" or (large and not bent and _hardly_moves(run)):
        return Compared("sound", told + "; the training bears it", learned.points, nats, learned.confidence, facts)
    evidence, own = (*facts, *learned.evidence), treatment(run)
    return replace(learned, nats=nats, summary=told, evidence=evidence, remedy=remedy, kind=kind, treatment=own)


def _penalty(run: RunRecord) -> tuple[Evidence, ...] | None:
    """Evidence that what is added to the loss and depends on no sample is what the first epoch brings down; else None."""
    first = next((p for p in run.of_phase("train") if p.optimizer_steps), None)
    if first is None or len(first.steps) != first.num_batches or (first.steps.backwards != 1).any():
        return None
    counts = np.bincount(first.samples.batch, minlength=first.num_batches)
    own = np.bincount(first.samples.batch, first.samples.loss, first.num_batches) / np.maximum(counts, 1)
    added = first.steps.loss - own
    if len(added) < LEAST_STEPS or not np.isfinite(added).all() or added[0] < LARGE_PART * own[0]:
        return None
    few = len(added) // 3
    fell = [float(v[:few].mean() - v[-few:].mean()) for v in (added, own)]
    rough = float(np.median(np.abs(np.diff(added, 2))))
    if rough > SMOOTH * added[0] or fell[0] < OUTRUNS * max(fell[1], LEAST_FALL):
        return None
    n = len(added)
    return (
        Evidence("what is minimised beside the cross-entropy, at the first step", float(added[0]), 0.0, "nats", n),
        Evidence("how far that fell in the first epoch, beside the cross-entropy", fell[0], fell[1], "nats", n),
    )


def _strayed_weights(run: RunRecord) -> tuple[str, tuple[Evidence, ...], Measured | None] | None:
    """What is told, evidence and points, of weights that are made of the counts of the classes and given to others; else None."""
    last = run.last_train
    if last is None or last.loss is None:
        return None
    counts = np.bincount(last.samples.target[last.samples.labelled], minlength=len(last.loss.weights))
    fits = fall_of_weights(np.asarray(last.loss.weights, float), counts)
    if fits is None or counts.max() < UNEVEN * counts.min():
        return None
    own, best = fits
    rises, strays = own > MADE_OF_COUNTS, best < -MADE_OF_COUNTS and own > -STRAYS
    if not rises and not strays:
        return None
    n = int(counts.sum())
    told = "the loss's class weights fit the class counts in another order: they are given to other classes"
    if rises:
        told = "the loss's class weights rise with the class counts: they favour the classes that are large"
    given = np.asarray(last.loss.weights, float)
    meant = np.empty_like(given)
    meant[np.argsort(counts, kind="stable")] = np.sort(given)[::-1]
    slighted = given < SLIGHTED * meant
    facts = (
        Evidence("class weights against class counts, correlation of logarithms", own, best, "", n),
        Evidence("images of the largest class for one of the smallest", float(counts.max() / counts.min()), 1.0, "", n),
    )
    points = lack_of_recall(run, slighted)
    return told, facts, points if points is not None and points.value > 0 else None


def _with_gradients(run: RunRecord) -> list[Pass]:
    return [p for p in run.of_phase("train") if p.gradient is not None]


def _direction(passes: list[Pass]) -> float:
    """Cosine with cross-entropy's gradient: of the first pass; of a later one where the loss parts from it while errors are many.

    What is added to a loss may pull little at fresh logits. Near the end of a training that went well the gradient of
    cross-entropy is so small that smoothing alone turns it.
    """
    first = passes[0].gradient
    assert first is not None
    later = [p.gradient.cosine for p in passes[1:] if p.gradient is not None and p.samples.accuracy <= MANY_ERRORS]
    worst = min(later, default=1.0)
    return worst if first.cosine >= ALIKE and worst < LATER else first.cosine


def _with_sense(run: RunRecord) -> RunRecord:
    """The record, the gradients of a goal that its optimizers maximize turned round: they are of what is to fall."""
    groups = [g for o in run.optimizers.values() for g in o.groups]
    if not groups or not all(g.get("maximize") for g in groups):
        return run
    turned = [replace(p, gradient=replace(p.gradient, cosine=-p.gradient.cosine)) if p.gradient else p for p in run.passes]
    return replace(run, passes=tuple(turned))


def _hardly_moves(run: RunRecord) -> bool:
    """Whether steps hardly change the weights: then something takes a large gradient back, and its size does no harm."""
    ratios = np.concatenate([np.zeros(0, np.float32), *(p.steps.update_ratio for p in run.of_phase("train"))])
    ratios = ratios[np.isfinite(ratios)]
    return bool(len(ratios)) and float(np.median(ratios)) < HARDLY


def _features_learnt(run: RunRecord) -> bool:
    """Whether most of the network below its last layer moved in training."""
    held = holding(run)
    if held is None:
        return False
    below = held.weights & ~held.head
    return bool(below.any()) and share(held.model, held.moved & below, below) > 0.5


def _wrong(run: RunRecord) -> float:
    """Share of wrong answers of the last validation; 0 where none is known."""
    val = run.last_validation
    return 1 - val.samples.accuracy if val is not None and val.samples.answered else 0.0


def treatment(run: RunRecord) -> Intervention | Untreatable:
    """The mean cross-entropy of the targets that training saw, by position."""
    passes = _with_gradients(run)
    if any(g.get("maximize") for o in run.optimizers.values() for g in o.groups):
        return Untreatable("the optimizer maximizes, and the reference is to be minimised")
    if not passes or _soft(passes[0]):
        return Untreatable("gradients at the logits, of hard targets, were not seen")
    targets: dict[str, list[int]] = {}
    for number in {p.dataset for p in passes}:
        info = run.datasets.get(number)
        seen = [p.samples for p in passes if p.dataset == number]
        known = {s: t for table in seen for s, t in zip(table.sample.tolist(), table.target.tolist(), strict=True) if s >= 0}
        if info is not None and info.sample is not None and known:
            targets[str(number)] = [known.get(s, -1) for s in info.sample.tolist()]
    last, model = passes[-1], run.trained_model
    classes = last.loss.num_outputs if last.loss is not None else model.num_outputs if model is not None else -1
    if not targets or classes < 2:
        return Untreatable("the positions of the training samples, or the logits that the loss is of, are not known")
    steps = sum(p.optimizer_steps for p in passes)
    gathered = max(1, round(sum(p.backwards for p in passes) / steps)) if steps else 1
    return Intervention("reference_loss", {"targets": targets, "classes": int(classes), "gathered": gathered})


def overconfidence(run: RunRecord) -> Measured | None:
    """Nats of validation loss that one temperature for all logits takes away; None where it was not measured."""
    numbers = run.closing.numbers if run.closing is not None else {}
    if "val_nll_tempered" not in numbers:
        return None
    value, half = numbers["val_nll"] - numbers["val_nll_tempered"], 1.96 * numbers["val_nll_gain_se"]
    return Measured(value, value - half, value + half)


def loss_parts(run: RunRecord) -> LossParts | None:
    """The validation loss of the finished model in its two parts; None where it was not measured."""
    confidence = overconfidence(run)
    if confidence is None or run.closing is None:
        return None
    numbers = run.closing.numbers
    last = run.last_validation
    mean = last.samples.mean_loss if last is not None else math.nan
    recorded = mean if math.isfinite(mean) else None
    return LossParts(numbers["val_nll"], confidence, numbers["val_nll_tempered"], int(numbers["calibration_n"]), recorded)


def _soft(one: Pass) -> bool:
    return one.loss is not None and one.loss.target_kind == "soft"
