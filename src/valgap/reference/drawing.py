"""Drawing: every training sample once an epoch, in a random order.

What was drawn over the whole training is held against the samples that there are: how many of them, and of which classes. What
that costs is measured: a probe on sound features learns once from the samples as often as they were drawn, once from all.

A sampler that shows classes more evenly than the set holds them means to: then only what it does within classes counts.

Source: sampling without replacement, as in Bottou 2009 and in torch's RandomSampler; effective number of samples of weighted
draws: Kish 1965.
"""

from __future__ import annotations

import numpy as np

from valgap.checks.preprocessing.missing_augmentation import all_new
from valgap.features import Measurements
from valgap.features.source import rows_of_declared
from valgap.reference.probing import MIN_IMAGES, Answers, answers, gained, likely_above, likely_fall
from valgap.reference.recalls import lack_of_recall
from valgap.types import (
    Compared,
    Evidence,
    FloatArray,
    ImageRows,
    IntArray,
    Intervention,
    Measured,
    Pass,
    RunRecord,
    StageVerdict,
    Untreatable,
)

# Of the samples that as many draws, each once an epoch, would have shown, so many must have been.
COMPLETE = 0.9
# Of the samples, so many must be left as the effective number of the draws: (sum of counts)^2 / sum of counts^2.
EVEN = 0.8
SELDOM = 0.5  # a class is drawn so where its samples come less than so often as the mean sample
MAX_IMAGES = 1_200
LEAST_POINTS, LEAST_NATS = 4.0, 0.1
SURE = 0.95
PART = 0.5  # of the samples: who draws fewer learns these by heart
FEWEST_IDLE = 2  # epochs without a batch
SURE_OF_HARDLY = 0.75
MIRRORED = 2  # contents that an image has, as it is and mirrored
POWERS = (0.1, 0.2, 0.35)  # of the number of images, by which an image classifier's error falls: least, middle, most
NO_LOADER = "no loader draws the samples"
# What no probe could measure is a hint, unless hardly anything was drawn at all.
HARDLY = 0.25
Gain = tuple[Measured, Measured, Answers]  # points and nats of validation that a probe gains, and its answers then


def compare(run: RunRecord, images: Measurements | None) -> Compared:
    """The samples that training drew, against those that it has."""
    nothing = _nothing(run)
    if nothing is not None:
        return nothing
    passes = [p for p in run.of_phase("train") if run.last_train is not None and p.dataset == run.last_train.dataset]
    if not passes:
        return Compared("unknown", "", missing="a training pass")
    drawn = np.concatenate([p.samples.sample for p in passes])
    known = drawn[drawn >= 0]
    size = _size(run, passes[-1])
    if passes[-1].dataset < 0:
        return _of_opened(run, images, drawn)
    if size <= 0 or not len(known) or len(known) < len(drawn):
        return Compared("unknown", "", missing="a training set of known length, whose samples are known")
    distinct = len(np.unique(known))
    # Passes that were cut short, or a budget of less than an epoch, show fewer, and that is no fault of the drawing.
    possible = min(size, len(known))
    share = distinct / possible
    classes = [len(np.unique(t[t >= 0])) for t in (_targets(passes), _held(run, passes[-1]))]
    facts = [
        Evidence("training samples that were ever drawn", distinct, possible, "samples", len(known)),
        Evidence("classes among them, of those in the training set", classes[0], classes[1], "classes"),
    ]
    even = _evenness(known, size)
    complete = share >= COMPLETE and classes[0] >= classes[1]
    if complete and even >= EVEN:
        return Compared("sound", "training draws (nearly) every sample that it has", evidence=tuple(facts))
    if share >= COMPLETE and len(known) < size and not any(p.complete for p in passes):
        # Loops that broke off within the first epoch: each sample once, and of few samples few classes.
        return Compared("unknown", "", evidence=tuple(facts), missing="an epoch of training")
    facts.append(Evidence("effective number of samples drawn, of those in the training set", even * size, size, "samples"))
    rows = rows_of_declared(run, passes[-1], MAX_IMAGES) if images is not None else None
    measured = _measured(run, rows, passes) if rows is not None else None
    points: Measured | None
    told = f"{distinct} of {possible} training samples were ever drawn"
    if classes[0] < classes[1]:
        told += f", of {classes[0]} of {classes[1]} classes"
    remedy = "draw every sample once an epoch (shuffle=True); a weighted sampler needs one weight a sample, not one a class"
    if complete:
        told = f"training draws some samples far more often than others: as if it had {even:.0%} of them"
        remedy = "draw every sample once an epoch (shuffle=True); weights of a sampler belong to samples, by the class of each"
    kind = "" if complete else "few"
    own = _treatment(run, passes[-1])
    seldom = _seldom_shown(run, passes)
    if seldom is not None and (measured is None or seldom.value > measured[0].value):
        sure, nats = SURE * likely_above(seldom, LEAST_POINTS), measured[1] if measured is not None else None
        if sure >= 0.5:
            facts.append(Evidence("points of recall that classes drawn seldom lack", seldom.value, 0.0, "points"))
            return Compared("at fault", told, seldom, nats, sure, tuple(facts), remedy, treatment=own, kind=kind)
    if measured is None and complete:
        return Compared("unknown", "", evidence=tuple(facts), missing="features of the images", treatment=own)
    if measured is None:
        sure = SURE if share < HARDLY or classes[0] < 0.6 * classes[1] else 0.4
        verdict: StageVerdict = "at fault" if sure >= 0.5 else "unknown"
        points, missing = _never_drawn(run, passes), "features of the images"
        return Compared(verdict, told, points, None, sure, tuple(facts), remedy, missing, treatment=own, kind="few")
    points, nats = measured[:2]
    # That samples are never drawn is a fact: of few validation images the loss tells what it costs before the answers do.
    by_loss = likely_fall(nats, LEAST_NATS) if not complete and points.value > 0 else 0.0
    confidence = SURE * max(likely_above(points, LEAST_POINTS), by_loss)
    scratch = _from_nothing(run, share) if share < HARDLY else None
    if scratch is not None and scratch.value > points.value:
        points, confidence = Measured(scratch.value, max(points.low, 0.0), scratch.high), max(confidence, SURE_OF_HARDLY)
    if confidence < 0.5:
        told += ", which costs nothing measurable"
        return Compared("sound", told, points, nats, confidence, tuple(facts), treatment=own)
    points = _what_all_would_give(run, points, measured[2]) if share < PART else points
    return Compared("at fault", told, points, nats, confidence, tuple(facts), remedy, treatment=own, kind=kind)


def _of_opened(run: RunRecord, images: Measurements | None, drawn: IntArray) -> Compared:
    """What a loop showed of the training files that the program opened; images that change each time are not counted so."""
    size, distinct = len(run.unlisted), len(np.unique(drawn))
    kept = {k.pass_index: len(k.sample) for k in run.kept if run.passes[k.pass_index].phase == "train"}
    if kept and all(n == len(run.passes[i].samples) for i, n in kept.items()) and distinct <= MIRRORED * run.unlisted_told:
        distinct = run.unlisted_told  # of the first pass and the last, and no others came between: some are mirrored
    possible = min(size, len(drawn))
    if not size or (drawn < 0).any() or distinct > size:
        return Compared("unknown", "", missing="a training set of known length, whose samples are known")
    facts = (
        Evidence("training images that were ever drawn, of those that were opened", distinct, possible, "images", len(drawn)),
    )
    if distinct >= COMPLETE * possible:
        return Compared("sound", "training draws (nearly) every image that it has opened", evidence=facts)
    told = f"{distinct} of the {size} training images that the program opened were ever drawn, in {len(drawn)} draws"
    remedy = "draw from all of them in every epoch: one random order that goes on, no generator made anew with the same seed"
    measured = _of_part(images, distinct / size) if images is not None else None
    if measured is None:
        return Compared("unknown", told, evidence=facts, missing="features of the images")
    points, nats = measured[:2]
    confidence = SURE * likely_above(points, LEAST_POINTS)
    own = _from_nothing(run, distinct / size) if distinct < HARDLY * size else None
    if own is not None and own.value > points.value:
        points, confidence = Measured(own.value, max(points.low, 0.0), own.high), max(confidence, SURE_OF_HARDLY)
    if confidence < 0.5:
        return Compared("sound", told + ", which costs nothing measurable", points, nats, confidence, facts)
    points = _what_all_would_give(run, points, measured[2]) if distinct < PART * size else points
    return Compared("at fault", told, points, nats, confidence, facts, remedy, treatment=Untreatable(NO_LOADER), kind="few")


def _from_nothing(run: RunRecord, share: float) -> Measured | None:
    """Points that a network without loaded weights would gain by all images instead of such a share; None for another one.

    Its error falls by a power of the number of images: Hestness et al. 2017, figure 6. Features that were learnt elsewhere, as a
    probe's are, need far fewer.
    """
    model, val = run.trained_model, run.last_validation
    if model is None or not all_new(model) or val is None or not val.samples.answered:
        return None
    error = 100 * (1 - val.samples.accuracy)
    low, value, high = (error * (1 - share**power) for power in POWERS)
    return Measured(value, low, high)


def _what_all_would_give(run: RunRecord, points: Measured, whole: Answers) -> Measured:
    """Points by which a network with given weights lags behind a probe that learned from all samples, where these are more.

    What a probe loses by few samples is the least of it: training goes on over the same ones, and learns them by heart.
    """
    model, val = run.trained_model, run.last_validation
    if model is None or all_new(model) or val is None or not val.samples.answered:
        return points
    lag = 100 * (whole.accuracy - val.samples.accuracy)
    return Measured(lag, points.low, max(points.high, 2 * lag - points.low)) if lag > points.value else points


def _of_part(images: Measurements, share: float) -> Gain | None:
    """(points, nats) that a probe gains by learning from all training images instead of from such a share of each class."""
    known = _both_sides(images)
    if known is None:
        return None
    train, val, features, labels = known
    weights, rng = np.zeros(len(train)), np.random.default_rng(0)
    for k in np.unique(labels[train]):
        own = np.flatnonzero(labels[train] == k)
        weights[rng.permutation(own)[: max(1, round(share * len(own)))]] = 1.0
    return _with_all(images, train, val, features, weights)


def _nothing(run: RunRecord) -> Compared | None:
    """The fault of a loader that gives no batch, or none after the first epochs: validation goes on over the same weights."""
    train = run.of_phase("train")
    validated = {p.loader for p in run.of_phase("validation")}
    for loader in run.loaders.values() if not train else ():
        held = run.datasets.get(loader.dataset)
        empty = loader.length == 0 and loader.drop_last and loader.id not in validated
        if empty and held is not None and held.size > 0:
            told = f"a loader drops its last incomplete batch, which is its only one: batches of {loader.batch_size}"
            fact = Evidence("batches that the loader gives", 0, 1, "batches", held.size)
            remedy = "use a batch size below the number of samples, or drop_last=False"
            return Compared("at fault", told, None, None, SURE, (fact,), remedy)
    epochs = {turns: {turn for p in train for turn, all_ in p.loops if all_ == turns} for p in train for _, turns in p.loops}
    for turns, taken in epochs.items():
        idle = {turn for turn in _untrained(run, turns) - taken if turn > min(taken)}
        if len(idle) >= FEWEST_IDLE and len(taken) + len(idle) <= turns:
            told = f"{len(idle)} of {turns} epochs went by without a training batch: validation scored the same weights again"
            fact = Evidence("epochs that were validated and drew nothing", len(idle), 0, "epochs", turns)
            remedy = "make the iterator anew in each epoch (iter(loader), a fresh generator): one that is used up gives nothing"
            return Compared("at fault", told, None, None, SURE, (fact,), remedy, kind="few")
    return None


def _untrained(run: RunRecord, turns: int) -> set[int]:
    """Turns of the loop of so many that were validated with no training since the turn that was validated before.

    A training pass is known by the turn in which it began: where no image comes twice it may last several.
    """
    found: set[int] = set()
    trained, last = True, -1
    for one in run.passes:
        turn = next((t for t, all_ in one.loops if all_ == turns), -1)
        trained |= one.phase == "train"
        if one.phase == "validation" and turn not in (-1, last):
            if not trained:
                found.add(turn)
            trained, last = False, turn
    return found


def _evenness(known: IntArray, size: int) -> float:
    """Effective number of samples that were drawn, as a share of those that there are (or that so many draws can show)."""
    counts = np.unique(known, return_counts=True)[1].astype(np.float64)
    return float(counts.sum() ** 2 / (counts**2).sum() / min(size, len(known))) if len(counts) else 1.0


def _within_classes(weights: FloatArray, labels: IntArray) -> FloatArray:
    """The weights (N,) as they are; each over its class's mean, where together they show classes more evenly than there are."""
    own, shown = np.bincount(labels), np.bincount(labels, weights=weights)
    return weights / (shown / np.maximum(own, 1))[labels] if _evener(own, shown) else weights


def _seldom_shown(run: RunRecord, passes: list[Pass]) -> Measured | None:
    """Points that the finished model lacks on classes drawn less than half as often as the set holds them.

    None where there is no such class, or sampling shows classes more evenly than the set holds them.
    """
    held, drawn = _held(run, passes[-1]), _targets(passes)
    held, drawn = held[held >= 0], drawn[drawn >= 0]
    if not len(held) or not len(drawn):
        return None
    size = 1 + int(max(held.max(), drawn.max()))
    own, shown = np.bincount(held, minlength=size), np.bincount(drawn, minlength=size)
    rate = shown / np.maximum(own, 1) / (len(drawn) / len(held))
    seldom = (own > 0) & (rate < SELDOM)
    if not seldom.any() or _evener(own, shown):
        return None
    return lack_of_recall(run, seldom)


def _evener(own: IntArray, shown: IntArray | FloatArray) -> bool:
    """Whether classes (C,) are shown more evenly than there are samples of them."""
    present = own > 0
    if (shown[present] == 0).any():
        return False
    return float(shown[present].max() / shown[present].min()) < float(own[present].max() / own[present].min())


def _never_drawn(run: RunRecord, passes: list[Pass]) -> Measured | None:
    """Points of validation images whose class is in the training set and was never drawn, recognised as well as the others."""
    val = run.last_validation
    held = _held(run, passes[-1])
    missing = np.setdiff1d(held[held >= 0], _targets(passes))
    if val is None or not len(missing) or not val.samples.labelled.any():
        return None
    table = val.samples
    lost = np.isin(table.target[table.labelled], missing)
    share = 100 * float(lost.mean())
    others = (table.prediction == table.target)[table.labelled][~lost]
    return Measured(share * float(others.mean()) if len(others) else share, 0.0, share)


def _treatment(run: RunRecord, one: Pass) -> Intervention:
    """Every sample once an epoch, without those that only other phases draw from the same data set."""
    settings: dict[str, object] = {"phase": "train", "batch_size": int(one.batch_sizes.max(initial=1))}
    dataset, others = run.datasets.get(one.dataset), _of_others(run, one)
    if others and dataset is not None and dataset.sample is not None:
        settings["positions"] = [i for i, s in enumerate(dataset.sample.tolist()) if s not in others]
    return Intervention("draw_all", settings)


def _size(run: RunRecord, one: Pass) -> int:
    """How many samples the training has to draw from: those of the data set that no other phase draws."""
    dataset = run.datasets.get(one.dataset)
    if dataset is None or dataset.size <= 0:
        return -1
    return dataset.size - len(_of_others(run, one))


def _of_others(run: RunRecord, one: Pass) -> set[int]:
    """Samples of the same data set that only other phases draw: what BatchNorm is measured on, or scored again, is training's."""
    own, others = (
        {s for p in run.passes if p.dataset == one.dataset and (p.phase == "train") is train for s in p.samples.sample.tolist()}
        for train in (True, False)
    )
    return {s for s in others - own if s >= 0}


def _targets(passes: list[Pass]) -> IntArray:
    return np.concatenate([p.samples.target for p in passes])


def _held(run: RunRecord, one: Pass) -> IntArray:
    """The declared targets of the training set; what was drawn, where it declares none."""
    dataset = run.datasets.get(one.dataset)
    if dataset is None or dataset.targets is None or dataset.sample is None or len(dataset.targets) != len(dataset.sample):
        return one.samples.target
    return np.asarray(dataset.targets)[~np.isin(dataset.sample, list(_of_others(run, one)))]


def _measured(run: RunRecord, rows: ImageRows, passes: list[Pass]) -> Gain | None:
    """(points, nats) that a probe gains by learning from all samples instead of from what was drawn, as often."""
    images = Measurements(rows)
    known = _both_sides(images)
    if known is None:
        return None
    train, val, features, labels = known
    counts = dict(zip(*np.unique(np.concatenate([p.samples.sample for p in passes]), return_counts=True), strict=True))
    place = {name: i for i, name in enumerate(run.sample_names)}
    shown = np.array([counts.get(place.get(rows.names[i], -1), 0) for i in train], np.float64)
    if not shown.any():
        return None
    return _with_all(images, train, val, features, _within_classes(shown, labels[train]))


def _both_sides(images: Measurements) -> tuple[IntArray, IntArray, FloatArray, IntArray] | None:
    """(rows of training, rows of validation, features, labels) of the images with both; None where they are few."""
    rows, features = images.rows, images.embeddings
    if features is None:
        return None
    usable = np.isfinite(features[:, 0]) & (rows.labels >= 0)
    train, val = np.flatnonzero(usable & ~rows.is_val), np.flatnonzero(usable & rows.is_val)
    if min(len(train), len(val)) < MIN_IMAGES or len(np.unique(rows.labels[train])) < 2:
        return None
    return train, val, features, rows.labels


def _with_all(images: Measurements, train: IntArray, val: IntArray, features: FloatArray, weights: FloatArray) -> Gain:
    """What a probe gains by learning from all training images alike instead of with these weights."""
    labels, classes = images.rows.labels, len(images.rows.classes)
    asked = {"val": (features[val], labels[val])}
    whole = answers(features[train], labels[train], asked, classes)["val"]
    own = answers(features[train], labels[train], asked, classes, weights / weights.mean())["val"]
    return *gained(own, whole), whole
