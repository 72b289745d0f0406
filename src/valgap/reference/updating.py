"""The updates: they lead to a head that makes of the features what can be made of them, and leave the features no worse.

A probe (ridge regression, its penalty found on held-out folds) is the reference for the head; the features before training are
the reference for those after it. Both are numbers of the closing measurements.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from valgap.checks.shared.loss_course import loss_course
from valgap.checks.shared.progress import NO_TORCH_OPTIMIZER
from valgap.checks.shared.seen_part import SETTLED_STEPS, few_steps
from valgap.recipe import RECIPE
from valgap.reference.probing import likely_above
from valgap.types import Compared, Evidence, FloatArray, Intervention, Measured, RunRecord, SampleTable, Untreatable

# Points by which augmentation and early stops may leave a sound head behind the probe.
LEAST_POINTS = 6.0
SURE = 0.9
# The same for a training whose loss still falls, where it made so many steps: the first hundred leave any probe far ahead.
LEAST_UNDER_WAY, SURE_UNDER_WAY, STEPS_UNDER_WAY = 12.0, 0.75, 200
# AdamW moves each weight by about its rate. So that weights come about as far in a training of few steps as in a long one that
# wanders, rates are these at a hundred steps and go with the root of their number, within bounds: of layers as they were made,
# and of given ones under them (a tenth: Howard and Ruder 2018, section 3.2). `make bench-reference-update` holds it against what
# sound programs reach with their own.
RATE, RATES = 3e-3, (1e-3, 1e-2)
GIVEN_RATE, GIVEN_RATES = 3e-4, (5e-5, 1e-3)
AT_STEPS = 100
WEIGHT_DECAY = 1e-2  # Loshchilov and Hutter 2019; torch's default
# Between steps the program itself moves weights by this share of what a step moves them, at most of the looks: masks and norms
# that are kept do less, and what is averaged every few steps does so seldom.
MEDDLES, MOSTLY, LEAST_LOOKS = 0.4, 0.6, 4
# Of what each pass over the training data moves, so much is taken back before the next begins, at most of the passes.
UNDONE = 0.25
# What the optimizer is given, over what the loss gives: clipping leaves a tenth and more; and updates, over the weights, that
# lead nowhere. Cosine of the two, above which clipping by value and what is added to the loss leave it.
SMALL_PART, HARDLY, OTHER_WAY = 0.01, 1e-4, 0.3
# So many backward passes before a step are more than anybody means to gather.
SELDOM = 8


def best_epoch(run: RunRecord, table: SampleTable) -> float:
    """The highest accuracy of any recorded validation on these samples: that it was not kept is the choice's fault."""
    wanted = table.sample[table.labelled & (table.sample >= 0)]
    last = run.last_validation
    found = [0.0]
    for one in run.of_phase("validation"):
        keep = np.isin(one.samples.sample, wanted)
        if last is not None and one.dataset == last.dataset and keep.sum() == len(wanted) > 0:
            found.append(float((one.samples.prediction[keep] == one.samples.target[keep]).mean()))
    return max(found)


def compare(run: RunRecord) -> Compared:
    """The run's own answers against probes on its first and last features."""
    closing = run.closing
    numbers = closing.numbers if closing is not None else {}
    table = closing.rescores.get("val_eval") if closing is not None else None
    if closing is None or table is None or not table.answered or "probe_final" not in numbers:
        reason = closing.skipped.get("probe", closing.skipped.get("rescores", "")) if closing is not None else ""
        return Compared("unknown", "", missing=reason or "probes on the features of the finished model")
    own, n = max(table.accuracy, best_epoch(run, table)), int(numbers["probe_n"])
    ways = {"the last features": numbers["probe_final"]}
    if "probe_start" in numbers:
        ways["the features before training"] = numbers["probe_start"]
    name, best = max(ways.items(), key=lambda w: w[1])
    # Pairs of answers mostly agree: half of the variance of two independent shares.
    error = 100 * math.sqrt(0.5 * (own * (1 - own) + best * (1 - best)) / max(1, n)) + 1e-6
    value = 100 * (best - own)
    points = Measured(value, value - 1.96 * error, value + 1.96 * error)
    facts = tuple(Evidence(f"val accuracy of a probe on {w}", v, own, "", n) for w, v in ways.items())
    confidence = SURE * likely_above(points, LEAST_POINTS)
    if confidence < 0.5:
        return Compared("sound", "the training made of the features what a probe makes of them", points, None, confidence, facts)
    told = f"a probe on {name} reaches {best:.1%}, the training {own:.1%}"
    remedy = "see what moves in a step and how far: learning rate, loss, gradients, schedule; train the head alone to compare"
    return Compared("at fault", told, points, None, confidence, facts, remedy, treatment=treatment(run))


def treatment(run: RunRecord) -> Intervention | Untreatable:
    """The recipe's steps: as many as the program makes, or one after each backward pass where the program makes few."""
    train = run.of_phase("train")
    tables = [p.steps for p in train if len(p.steps)]
    backwards = sum(p.backwards for p in train)
    if run.own_updates or not (tables or backwards):
        return Untreatable(NO_TORCH_OPTIMIZER)
    # Of several optimizers that step for one batch, one counts.
    steps = sum(int(np.bincount(t.optimizer).max()) for t in tables)
    seldom = backwards >= SELDOM * steps
    made = backwards if seldom else steps
    groups = [g for o in run.optimizers.values() for g in o.groups]
    settings: dict[str, object] = {
        "steps": made,
        "each_backward": seldom,
        "rate": _at(made, RATE, RATES),
        "given_rate": _at(made, GIVEN_RATE, GIVEN_RATES),
        "weight_decay": WEIGHT_DECAY,
        "clip_norm": RECIPE.clip_norm,
        "warmup_steps": RECIPE.warmup_steps,
        "ascends": bool(groups) and all(g.get("maximize") for g in groups),
    }
    return Intervention("reference_update", settings)


def _at(steps: int, rate: float, bounds: tuple[float, float]) -> float:
    """The rate for a training of so many steps."""
    return float(np.clip(rate * math.sqrt(AT_STEPS / max(1, steps)), *bounds))


def beside_steps(run: RunRecord, found: Compared) -> Compared:
    """The comparison, unless the program moves its weights beside its optimizer's steps, or gives that other gradients."""
    for fault in (_handed_on(run, found), _taken_back(run, found), _meddled(run, found)):
        if fault is not None:
            return fault
    return found


def _handed_on(run: RunRecord, found: Compared) -> Compared | None:
    """The fault of gradients that have little to do with the loss's own when the optimizer gets them, in a network far behind.

    That a training has made few steps is no excuse then: more of these would not have led there.
    """
    cosines, ratios, moves = (_looks(run, name) for name in ("head_cosine", "head_ratio", "update_ratio"))
    behind = found.points is not None and found.points.value >= LEAST_POINTS and found.points.low > 0
    if found.verdict not in ("at fault", "unknown") or not behind or run.group or min(len(ratios), len(moves)) < LEAST_LOOKS:
        return None
    cosine, ratio, moved = (float(np.median(v)) for v in (cosines, ratios, moves))
    small = ratio < SMALL_PART and moved < HARDLY
    if not small and cosine >= OTHER_WAY:
        return None
    facts = (
        Evidence("gradient given to the optimizer over the loss's own, at the last layer", ratio, 1.0, "", len(ratios)),
        Evidence("cosine of the two", cosine, 1.0, "", len(cosines)),
        Evidence("size of an update over that of the weights (median)", moved, "above 1e-4", "", len(moves)),
        *found.evidence,
    )
    told = f"the optimizer is given gradients of {ratio:.1g} times the loss's own, and hardly moves the weights"
    remedy = "with a GradScaler call scaler.unscale_(optimizer) before gradients are clipped; see how they are clipped and scaled"
    if not small:
        told = f"the optimizer is given other gradients than the loss's own (cosine {cosine:.2f} at the last layer)"
        remedy = "see what writes to .grad between backward() and step(): noise, signs, clipping by value, hooks"
    return Compared("at fault", told, found.points, None, SURE, facts, remedy, treatment=treatment(run))


def _meddled(run: RunRecord, found: Compared) -> Compared | None:
    """The fault of a program that itself moves its weights between the steps, about as far as these do."""
    times = _mostly(_looks(run, "outside_ratio"), MEDDLES)
    if times is None:
        return None
    told = f"between the steps the program itself moves its weights, {times:.1f} times as far as a step of its optimizer does"
    remedy = "see what writes to the parameters beside optimizer.step(): resets, pulls, factors; leave them to the optimizer"
    return _of_own(run, found, Evidence("moves of weights between steps, over those of the steps", times, 0.0), told, remedy)


def _taken_back(run: RunRecord, found: Compared) -> Compared | None:
    """The fault of a program that takes back a part of what each pass moved before it trains on."""
    share = _mostly(_looks(run, "taken_back"), UNDONE)
    if share is None:
        return None
    told = f"before each epoch the program takes back {share:.0%} of what the last one has moved in its weights"
    remedy = "see what loads or writes weights between epochs: averaged ones that validation uses must be taken out after it"
    return _of_own(
        run, found, Evidence("of what a pass's steps moved, taken back before the next pass", share, 0.0), told, remedy
    )


def _of_own(run: RunRecord, found: Compared, fact: Evidence, told: str, remedy: str) -> Compared:
    """The fault, with the points that the comparison measured where that told one as well."""
    points = found.points if found.verdict == "at fault" else None
    return Compared("at fault", told, points, None, SURE, (fact, *found.evidence), remedy, treatment=treatment(run))


def _looks(run: RunRecord, name: str) -> FloatArray:
    """The known numbers of a column of all training steps, (n,)."""
    every = np.concatenate([np.zeros(0, np.float32), *(getattr(p.steps, name) for p in run.of_phase("train"))])
    return np.asarray(every[np.isfinite(every)])


def _mostly(values: FloatArray, least: float) -> float | None:
    """Their median, where most of several are so large; else None."""
    few = len(values) < LEAST_LOOKS or np.mean(values >= least) < MOSTLY
    return None if few else float(np.median(values))


def settled(run: RunRecord, found: Compared) -> Compared:
    """The comparison, unless the training was still under way: what that has left to do is no fault, up to a point."""
    short, course = few_steps(run, SETTLED_STEPS), loss_course(run)
    if found.verdict != "at fault" or found.points is None:
        return found
    if short is not None:
        return replace(found, verdict="unknown", missing=short)
    early = few_steps(run, STEPS_UNDER_WAY) is not None
    if course is None or not (course.still_falls() or (early and course.seems_to_fall())):
        return found
    confidence = SURE_UNDER_WAY * likely_above(found.points, LEAST_UNDER_WAY)
    if confidence < 0.5 or early:
        return replace(found, verdict="unknown", missing="a training that has come to its end: its loss still falls")
    return replace(found, confidence=min(found.confidence, confidence))
