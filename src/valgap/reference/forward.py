"""The forward pass: the finished weights in eval mode, every image by itself.

The closing measurements asked the finished model about validation once more, in eval mode: what it says then is held against
what was recorded, image by image. Batch mates must not matter.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from valgap.checks.shared.freezing import frozen_share
from valgap.checks.shared.rescored import reloaded_since
from valgap.checks.shared.seen_part import SETTLED_STEPS, optimizer_steps
from valgap.reference.probing import MIN_IMAGES, Answers, answers, gained, likely_above, likely_fall
from valgap.reference.reading import Sides
from valgap.types import (
    MAX_LOSS,
    Compared,
    Evidence,
    IntArray,
    Intervention,
    Measured,
    Pass,
    RunRecord,
    SampleTable,
    Untreatable,
    same_samples,
)

LEAST_POINTS = 2.0
LEAST_NATS, LEAST_CHANGED = 0.05, 0.02
SURE = 0.97
# Of loaded weights the last two tensors may be a head, which is often made anew; few tensors are no published network.
HEAD_TENSORS, MIN_LOADED = 2, 6
MOST_ALTERED, SURE_OF_SOME = 0.5, 0.75
# Mean change of a logit by other batch mates, over the spread of the logits; rounding stays far below.
MATES, SURE_OF_MATES = 0.05, 0.9
# What a sound step without weights (an activation, a mean over positions, dropout at rest) may take from a probe.
LEAST_BETWEEN, SURE_OF_BETWEEN = 8.0, 0.9
# Published networks differ by some points in what their features tell of images at the same size.
LEAST_PUBLISHED, SURE_OF_PUBLISHED = 12.0, 0.85
MOSTLY = 0.5  # of a network's numbers, from which it is mostly frozen
# Running statistics lag behind a little in sound training; and strong augmentation has its part in what training loses.
LEAST_BY_BATCHES, SURE_OF_BATCHES = 6.0, 0.85


def compare(run: RunRecord) -> Compared:
    """Validation as it was recorded against eval mode; the network that training began with against the weights it was given."""
    if run.closing is not None and "labels_given" in run.closing.numbers:
        return Compared("unknown", "", missing="validation without its labels: the network is given them with the images")
    found = _against_eval(run)
    return (
        found if found.verdict == "at fault" else _among_mates(run, found) or _altered(run) or _lost_between(run, found) or found
    )


def _lost_between(run: RunRecord, found: Compared) -> Compared | None:
    """The fault of what stands between the last two layers with weights and leaves the last less than the one before gave."""
    numbers = run.closing.numbers if run.closing is not None else {}
    if "probe_before" not in numbers:
        return None
    before, after, n = numbers["probe_before"], numbers["probe_final"], int(numbers["probe_n"])
    value, half = 100 * (before - after), 1.96 * 100 * numbers["probe_before_se"]
    points = Measured(value, value - half, value + half)
    confidence = SURE_OF_BETWEEN * likely_above(points, LEAST_BETWEEN)
    if confidence < 0.5:
        return None
    facts = (
        Evidence("val accuracy of a probe on what the last layer before the head gives", before, after, "", n),
        *found.evidence,
    )
    told = (
        f"between its last two layers the network loses {value:.0f} points: a probe reads {before:.0%} before, {after:.0%} after"
    )
    remedy = "see what stands between the last features and the head: selections, reshapes, shuffles, rounding, means"
    return Compared("at fault", told, points, None, confidence, facts, remedy, kind="between")


def _among_mates(run: RunRecord, found: Compared) -> Compared | None:
    """The fault of answers that depend on the other images of a batch, or on their order, in eval mode."""
    mates, last = run.closing.numbers.get("batch_mate_change") if run.closing is not None else None, run.last_validation
    if mates is None or not mates >= MATES or last is None or not isinstance(treatment(run), Untreatable):
        return None
    told = f"in eval mode an image's logits change by {mates:.0%} of their spread among other images, or in another order"
    remedy = "let nothing in forward mix the images of a batch: no roll, softmax, sort, mean or attention over dimension 0"
    return Compared("at fault", told, None, None, SURE_OF_MATES, found.evidence, remedy, kind="mates")


def _altered(run: RunRecord) -> Compared | None:
    """The fault of weights that were loaded and then changed, before any step: below the head that is seldom meant.

    The first ones alone are rewritten on purpose: for other channels, or values of another scale.
    """
    model = run.trained_model
    if model is None or not len(model.altered):
        return None
    weights = np.flatnonzero(model.is_parameter & (model.altered >= 0))
    below = weights[: -HEAD_TENSORS or None]
    changed = below[model.altered[below] == 1]
    if not len(changed) or len(weights) < MIN_LOADED or changed.tolist() == [0]:
        return None
    share = float(model.numel[changed].sum() / model.numel[below].sum())
    names = [model.tensor_names[i] for i in changed[:3]]
    facts = (
        Evidence(
            "loaded tensors below the head that were no longer as loaded when training began", len(changed), 0, "", len(below)
        ),
        Evidence("their share of the numbers in them", share, 0.0),
    )
    told = f"{len(changed)} of {len(below)} loaded tensors were changed between the load and the first step ({', '.join(names)})"
    remedy = "initialise first and load the published weights last; let nothing write to them in between"
    return Compared("at fault", told, None, None, SURE if share >= MOST_ALTERED else SURE_OF_SOME, facts, remedy, kind="altered")


def against_published(run: RunRecord, sides: Sides | str, found: Compared) -> Compared:
    """The comparison, unless a published network makes far more of the same tensors than the program's own, also a published one.

    The tensors are those that the model was given, at its own size or smaller; the program's probe knows at least as many images.
    """
    model, closing = run.trained_model, run.closing
    if found.verdict == "at fault" or isinstance(sides, str) or not sides.told or model is None:
        return found
    # A copy that lags behind the trained model says little of the network.
    tables = closing.rescores if closing is not None else {}
    again = [tables[name] for name in ("val_eval", "val_trained") if name in tables]
    ran = max((table.accuracy for table in again if table.answered), default=0.0)
    if model.pretrained is not True:
        own = max(ran, sides.reached)
        return replace(found, published=_of_published(sides, own, len(sides.val.labels))[0]) if _given_weights(run) else found
    numbers = closing.numbers if closing is not None else {}
    if closing is None or "probe_final" not in numbers or "probe_start" in closing.skipped:
        return found
    own = max(numbers["probe_final"], numbers.get("probe_start", 0.0), ran)
    if 100 * (sides.told["sound", "sound"].accuracy - own) < LEAST_PUBLISHED:
        return found
    n = int(numbers["probe_n"])
    points, said = _of_published(sides, own, n)
    value = points.value
    confidence = SURE_OF_PUBLISHED * likely_above(points, LEAST_PUBLISHED)
    if confidence < 0.5:
        return found
    facts = (
        Evidence("val accuracy of a probe on a published network's features of the same tensors", said.accuracy, own, "", n),
    )
    told = f"a published network makes {value:.0f} points more of what the model is given than the model's own features do"
    remedy = "compare the network with the one that its weights were made for: layers, order, what forward does between them"
    return Compared("at fault", told, points, None, confidence, (*facts, *found.evidence), remedy, kind="published")


def _of_published(sides: Sides, own: float, n: int) -> tuple[Measured, Answers]:
    """(points of a probe on a published network's features of what the model is given, beyond ``own`` of n images; answers)."""
    classes = int(max(sides.train.labels.max(), sides.val.labels.max())) + 1
    asked = {"val": (sides.val.native(), sides.val.labels)}
    said = answers(sides.train.native(), sides.train.labels, asked, classes)["val"]
    error = 196 * float(np.sqrt(said.accuracy * (1 - said.accuracy) / len(said.right) + own * (1 - own) / max(1, n)))
    value = 100 * (said.accuracy - own)
    return Measured(value, value - error, value + error), said


def _given_weights(run: RunRecord) -> bool:
    """Whether the program put weights from elsewhere into its network, or froze most of it, as if it had."""
    model = run.trained_model
    frozen = model is not None and frozen_share(model) > MOSTLY
    return frozen or any(w.given > 0 and w.before_training for w in run.weights_loaded)


def _against_eval(run: RunRecord) -> Compared:
    last = run.last_validation
    again = run.closing.rescores.get("val_eval") if run.closing is not None else None
    if last is None or again is None:
        reason = run.closing.skipped.get("rescores", "") if run.closing is not None else ""
        return Compared("unknown", "", missing=reason or "closing measurements of the finished model")
    if reloaded_since(run, last):
        return Compared("unknown", "", missing="the same weights: others were loaded after the last validation")
    both = paired(last, again)
    if both is None:
        return Compared("unknown", "", missing=f"{MIN_IMAGES} validation images that were asked about twice")
    points, nats = gained(*both)
    facts = [Evidence("val accuracy in eval mode, image by image", both[1].accuracy, both[0].accuracy, "", len(both[0].right))]
    mates = run.closing.numbers.get("batch_mate_change") if run.closing is not None else None
    if mates is not None:
        facts.append(Evidence("change of an image's logits by its batch mates, of their spread", mates, 0.0))
    # Few images are answered otherwise where what is added to the logits only shakes them; their loss tells. A factor on all
    # logits, outside the model, changes the loss too, but no answer.
    by_loss = likely_fall(nats, LEAST_NATS) if points.value >= 0 and _changed(last.samples, again) >= LEAST_CHANGED else 0.0
    confidence = SURE * max(likely_above(points, LEAST_POINTS), by_loss)
    if points.value < 0 and points.high < 0:
        return Compared("gain", "validation as the script scores it is better than in eval mode", points, nats, 0.0, tuple(facts))
    unfit = _unfit_statistics(run, again)
    if confidence < 0.5 and unfit is not None:
        return unfit
    if confidence < 0.5:
        return Compared(
            "sound", "the model answers in validation as it does in eval mode", points, nats, confidence, tuple(facts)
        )
    better = f"{points.value:.0f} points" if points.value >= LEAST_POINTS else f"{nats.value:.2f} nats of loss"
    told = f"the same weights in eval mode, image by image, are {better} better than validation found them"
    remedy = "call model.eval() before validation and let nothing in forward depend on the other images of the batch"
    return Compared("at fault", told, points, nats, confidence, tuple(facts), remedy)


def treatment(run: RunRecord) -> Intervention | Untreatable:
    """Eval mode at validation."""
    last = run.last_validation
    if last is None or last.modes.training_flag + last.modes.batchnorm_training + last.modes.dropout_training <= 0:
        return Untreatable("validation ran in eval mode as it was")
    return Intervention("eval_mode", {"phase": "validation"})


def _unfit_statistics(run: RunRecord, again: SampleTable) -> Compared | None:
    """The fault of normalisation statistics that are not those of the data: both sides answer better by those of their batches.

    On validation alone that may as well be other images than training's, whose statistics would be wrong for them too.
    """
    assert run.closing is not None
    tables = run.closing.rescores
    # Where a program's own changes of its training images cannot be undone, they are asked about as it changes them.
    by_batch, train, ran = tables.get("val_train"), tables.get("train_eval", tables.get("train_augmented")), run.last_train
    both = _tables(again, by_batch) if by_batch is not None else None
    if both is None or train is None or ran is None or not train.answered or not ran.samples.answered:
        return None
    points, nats = gained(*both)
    behind = 100 * (ran.samples.accuracy - train.accuracy)
    confidence = SURE_OF_BATCHES * likely_above(points, LEAST_BY_BATCHES)
    if confidence < 0.5 or behind < LEAST_BY_BATCHES or optimizer_steps(run) < SETTLED_STEPS:
        return None
    facts = (
        Evidence("val accuracy by the statistics of its own batches", both[1].accuracy, both[0].accuracy, "", len(both[0].right)),
        Evidence("train accuracy as it ran, less that in eval mode", behind, 0.0, "points", len(train)),
    )
    told = f"with the statistics of its own batches the network is {points.value:.0f} points better than with those that it keeps"
    remedy = (
        "let only training batches move BatchNorm's statistics: no other forward pass in train mode, no second set of weights"
    )
    return Compared("at fault", told, points, nats, confidence, facts, remedy, kind="statistics")


def paired(last: Pass, again: SampleTable) -> tuple[Answers, Answers] | None:
    """What was recorded and what was said again, of the same labelled samples."""
    return _tables(last.samples, again)


def _tables(before: SampleTable, after: SampleTable) -> tuple[Answers, Answers] | None:
    here, there = same_samples(before, after)
    known = _told(before)[here] & _told(after)[there]
    if known.sum() < MIN_IMAGES:
        return None
    return _answers(before, here[known]), _answers(after, there[known])


def _told(table: SampleTable) -> npt.NDArray[np.bool_]:
    """(N,) which samples have a target, an answer and a loss."""
    return table.labelled & (table.prediction >= 0) & np.isfinite(table.loss)


def _answers(table: SampleTable, places: IntArray) -> Answers:
    right = table.prediction[places] == table.target[places]
    return Answers(np.asarray(right), np.minimum(table.loss[places].astype(np.float64), MAX_LOSS))


def _changed(before: SampleTable, after: SampleTable) -> float:
    """Share of the samples of both that are answered by another class, right or wrong."""
    here, there = same_samples(before, after)
    return float((before.prediction[here] != after.prediction[there]).mean()) if len(here) else 0.0
