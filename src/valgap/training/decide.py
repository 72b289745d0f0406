"""What `valgap train` decides by itself, each by training images alone: what learns, flips, the weight of classes."""

from __future__ import annotations

import copy
import json
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import torch

from valgap.training.fit import TRAINING_SHARE, Course, Watch
from valgap.training.forecast import forecast
from valgap.training.held_out import MOST_MEASURED, PARTS, Trial, TrialFit
from valgap.training.probe import Probe, stratified_folds
from valgap.training.saved import damage_is_said, write_whole
from valgap.training.scores import cautious_temperature
from valgap.training.stages import FROM_PROBE, LEARNED, add_dropout, usual_epochs
from valgap.types.kinds import check_kinds

if TYPE_CHECKING:
    from valgap.training.program import _Program

MIN_HELD_OUT = 20
FEWEST_OF_A_CLASS = 5
# Of the time that a limit leaves; the training on all of train has a half more steps.
TRIAL_TIME = 0.4
# With so accurate a probe on held-out train there is nothing that more could show on a fifth of it.
PROBE_ENOUGH = 0.99
# Flips are used where the probe of the unflipped is right on at most this share fewer of the flipped held-out images.
# Our choice: photographs of things are expected to lose a point or two, digits many.
FLIP_LOSS = 0.04
FLIP_IMAGES = 200
# Under a time limit that does not leave so many times what looking at them takes, nothing is flipped.
FLIP_TIME = 10.0
UNEVEN = 3.0
ADJUSTMENT_GAIN = 0.02


# What a trial came to, and the rate of the pretrained layers in it.
Tried = tuple[Trial, float | None]


@dataclass
class Decision:
    """What learns (head, last, last2 or all), whether images are flipped, what is added to the logits (C,), and why.

    ``course`` is how far the training goes and ``temperature`` what its logits are divided by, as held-out train says; None
    where val has to say it. ``backbone_rate`` is that of the trial; None where none was made. ``ended``: why it ended early.
    """

    unfreeze: str
    flip: bool
    bias: npt.NDArray[np.float64]
    reasons: list[str]
    backbone_rate: float | None = None
    course: Course | None = None
    temperature: float | None = None
    ended: str = ""

    def write(self, file: Path) -> None:
        """Keep it for a resumed run; a full disk is told by the loop."""
        body = {**vars(self), "bias": self.bias.tolist(), "course": asdict(self.course) if self.course is not None else None}
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, json.dumps(body))
        except OSError:
            pass

    @classmethod
    def read(cls, file: Path) -> Decision:
        """What was kept. Raises RecordError where it is not as `write` wrote it."""
        with damage_is_said(file.parent):
            body = json.loads(file.read_text(encoding="utf-8"))
            course = Course(**body["course"]) if body.get("course") is not None else None
            found = cls(**{**body, "bias": np.array(body["bias"], np.float64), "course": course})
            check_kinds(found)
            return found


def flip_keeps_class(program: _Program, features: npt.NDArray[np.float32], reasons: list[str]) -> bool:
    """Whether mirrored training images keep their class under a probe that saw neither them nor their originals."""
    labels = program.train_labels
    halves = _halves(labels, program.seed)
    if halves is None:
        return False
    fit, out = halves
    out = out[:FLIP_IMAGES]
    if program.limit - time.monotonic() < FLIP_TIME * program.seeing_s * len(out) / len(labels):
        return False
    assert program.probe is not None
    weight, bias = program.probe.again(features[fit], labels[fit], program.num_classes)
    mirrored = program.see([program.train_paths[i] for i in out], "flipped images", "flipped")[0]
    plain = ((features[out] @ weight.T + bias).argmax(1) == labels[out]).mean()
    flipped = ((mirrored @ weight.T + bias).argmax(1) == labels[out]).mean()
    keeps = bool(plain - flipped <= FLIP_LOSS)
    reasons.append(f"flips {'keep' if keeps else 'change'} the class: {flipped:.0%} right mirrored, {plain:.0%} as they are")
    return keeps


def _halves(labels: npt.NDArray[np.int64], seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
    """(to fit on, to look at): a stratified half each, in random order; None where a class has one image only."""
    return None if np.bincount(labels)[np.unique(labels)].min() < 2 else _held_out(labels, len(labels) // 2, seed)


def _held_out(labels: npt.NDArray[np.int64], count: int, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(to fit on, ``count`` to look at), drawn at random, of each class its share; the first of these are stratified as well."""
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    sizes = np.bincount(labels)
    # How far down its class each one stands, 0..1.
    place = (np.concatenate([np.arange(n) for n in sizes]) + 0.5) / np.repeat(sizes, sizes)
    order = order[np.argsort(place, kind="stable")]
    return np.sort(order[count:]), order[:count]


def what_learns(program: _Program, features: npt.NDArray[np.float32], decision: Decision) -> None:
    """Settle what learns, and how far: by a training from which a part of train is held out.

    ``auto`` are the stages behind the cut, or the head alone where they gain nothing that is clear. What was asked for by
    name learns unless nothing of it was better than the probe.
    """
    probe, labels, asked = program.probe, program.train_labels, program.recipe.unfreeze
    assert probe is not None
    by_name = asked != "auto"
    if asked == "head" or (by_name and program.recipe.select == "val"):
        return
    enough = enough_to_hold_out(labels, program.num_classes)
    refused = ""
    if not by_name and program.train_rows is None:
        refused = "this network cannot be cut in two (--unfreeze all trains all)"
    elif not by_name and probe.train_accuracy >= PROBE_ENOUGH:
        refused = "the probe is nearly perfect on train"
    elif not enough:
        refused = "too few images to compare"
    unfreeze = asked if by_name else program.behind_cut() if program.cut is not None else "head"
    tried = try_course(program, unfreeze, features, decision.reasons) if not refused else None
    if tried is not None and time_for_all(program):
        unfreeze, tried = better(program, unfreeze, tried, features, decision.reasons)
    if tried is None:
        refused = refused or "the time limit leaves no room for a training with held-out images"
        decision.reasons.append(
            f"validation says how far {LEARNED[unfreeze]} go: {refused}" if by_name else f"the head alone learns: {refused}"
        )
        decision.unfreeze = unfreeze if by_name else "head"
        return
    trial, decision.backbone_rate = tried
    decision.ended = trial.ended if trial.ended == "interrupted" else ""
    pays = trial.course.share > 0
    # What was asked for by name is refused where nothing of it was better than the probe, even averaged with it.
    refused_all = trial.best.share == 0 or not (by_name or pays)
    decision.unfreeze = "head" if decision.ended or refused_all else unfreeze
    if program.recipe.select == "held_out" and decision.unfreeze != "head":
        heat = held_out_temperature(probe, labels, decision.bias)
        decision.course = replace(trial.best, temperature=trial.temperature, probe_temperature=heat)
        decision.temperature = trial.temperature
    how = f", ended early ({trial.ended})" if trial.ended else ""
    trained = f"{LEARNED[unfreeze]}, trained on {len(labels) - len(labels) // PARTS} training images{how}"
    loss = f"loss {trial.probe_loss:.3f} -> {trial.loss:.3f}, accuracy {100 * trial.gain:+.1f} points against the probe"
    if trial.best.share == 0:
        loss = f"the probe's loss is {trial.probe_loss:.3f}"
    says = "gained" if pays else "gained nothing that is clear"
    decision.reasons.append(f"{trained}, {says} on {trial.images} others: {loss}")
    if refused_all:
        decision.reasons.append("the head alone learns")


def time_for_all(program: _Program) -> bool:
    """Whether a time limit was given that leaves room to try all layers and to train them, however the rest goes on.

    They gain several points where images are unlike the pretraining's (`make bench-accuracy`), at many times the time; who
    gave no limit asked for a quick answer.
    """
    left = program.limit - time.monotonic()
    if program.recipe.unfreeze != "auto" or math.isinf(left):
        return False
    expected = forecast(program, "all", 0)
    return expected.trial_s < TRIAL_TIME * left and expected.learning_s < TRAINING_SHARE * left


def better(
    program: _Program, unfreeze: str, tried: Tried, features: npt.NDArray[np.float32], reasons: list[str]
) -> tuple[str, Tried]:
    """All layers and their trial where that came to a lower loss on the held-out images than what was tried before."""
    program.say(f"{LEARNED[unfreeze]}: loss {tried[0].loss:.3f} on held-out images; the time limit leaves room to try all layers")
    other = try_course(program, "all", features, reasons)
    if other is None or other[0].ended == "interrupted" or not other[0].course.share or other[0].loss >= tried[0].loss:
        reasons.append("all layers were tried as well and were no better")
        return unfreeze, tried
    return "all", other


def enough_to_hold_out(labels: npt.NDArray[np.int64], num_classes: int) -> bool:
    """Whether a part of these images can be held out that tells something."""
    counts = np.bincount(labels, minlength=num_classes)
    held_out = len(labels) // PARTS
    return bool(counts.min() >= FEWEST_OF_A_CLASS and held_out >= MIN_HELD_OUT and held_out >= num_classes)


def try_course(program: _Program, unfreeze: str, features: npt.NDArray[np.float32], reasons: list[str]) -> Tried | None:
    """(what training with held-out images comes to, the rate of the pretrained layers); None where there is no time for it.

    At the usual rate, which is high; where that throws the network away, at a tenth.
    """
    asked = program.recipe.backbone_rate
    tried = None
    for rate in (FROM_PROBE, FROM_PROBE / 10) if asked is None else (asked,):
        trial = _trial(program, unfreeze, features, rate)
        if trial is None:
            break
        tried = trial, rate
        if trial.course.share > 0 or not trial.harmful or trial.ended == "interrupted":
            break
        if rate == FROM_PROBE and asked is None:
            reasons.append("at the usual rate training threw the network away: a tenth of it was tried")
    return tried


def _trial(program: _Program, unfreeze: str, features: npt.NDArray[np.float32], rate: float) -> Trial | None:
    """A copy of the network, from the probe of two thirds of train, trained on those; None where time is up before an epoch."""
    labels, probe = program.train_labels, program.probe
    assert probe is not None
    part = stratified_folds(labels, PARTS, program.seed)
    seen, out = np.flatnonzero(part != 0), np.flatnonzero(part == 0)
    if len(out) > MOST_MEASURED:
        out = out[stratified_folds(labels[out], math.ceil(len(out) / MOST_MEASURED), program.seed) == 0]
    weight, bias = probe.again(features[seen], labels[seen], program.num_classes)
    whole = program.learner(unfreeze)
    # The copy's head is found again by its place among the modules.
    place = next(i for i, m in enumerate(whole.modules()) if m is program.head)
    learner = copy.deepcopy(whole)
    head = list(learner.modules())[place]
    add_dropout(head, program.recipe.dropout)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))  # type: ignore[operator]
        head.bias.copy_(torch.from_numpy(bias))  # type: ignore[operator]
    remaining = program.limit - time.monotonic()
    deadline = time.monotonic() + TRIAL_TIME * remaining if math.isfinite(remaining) else math.inf
    watch = Watch(deadline, program.bar, say=program.say)
    recipe = program.recipe.model_copy(update={"average_best": 1, "backbone_rate": rate})
    learn, held = program.trial_loaders(unfreeze, seen, out)
    epochs = usual_epochs(recipe, unfreeze, len(labels))
    before = (features[out] @ weight.T + bias).astype(np.float32)
    fit = TrialFit(learner, head, learn, held, recipe, epochs, program.seed, None, watch)
    trial = fit.trial(before, program.decision.bias)
    return None if trial.ended == "the time is up" and len(fit.rows) == 1 else trial


def held_out_temperature(probe: Probe, labels: npt.NDArray[np.int64], bias: npt.NDArray[np.float64]) -> float:
    """What is still to be divided by, under a bias (C,), by the training images that the probe did not see; 1 without any."""
    if not np.isfinite(probe.held_out).all():
        return 1.0
    return cautious_temperature(probe.held_out + bias, labels[probe.swept])


def adjustment(
    probe: Probe,
    labels: npt.NDArray[np.int64],
    num_classes: int,
    mode: Literal["auto", "adjust", "none"],
    reasons: list[str],
) -> npt.NDArray[np.float64]:
    """(C,) what is added to the logits for uneven classes: minus the log of their shares, or nothing.

    Source: Menon et al. 2021, "Long-Tail Learning via Logit Adjustment", section 4.1.
    """
    counts = np.bincount(labels, minlength=num_classes).astype(np.float64)
    prior = np.log(np.maximum(counts, 1) / counts.sum())
    bias = np.asarray(prior.mean() - prior, np.float64)
    if mode == "adjust":
        return bias
    uneven = counts.max() / max(1.0, counts.min())
    if mode == "none" or uneven < UNEVEN or not np.isfinite(probe.held_out).all():
        return np.zeros(num_classes)
    target = labels[probe.swept]
    plain, adjusted = (_balanced(probe.held_out + b, target, num_classes) for b in (0.0, bias))
    if adjusted - plain < ADJUSTMENT_GAIN:
        return np.zeros(num_classes)
    reasons.append(
        f"classes differ {uneven:.0f} to 1: logits are adjusted "
        f"(balanced accuracy on held-out train {plain:.1%} -> {adjusted:.1%})"
    )
    return bias


def _balanced(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.int64], num_classes: int) -> float:
    right = logits.argmax(1) == labels
    return float(np.mean([right[labels == c].mean() for c in range(num_classes) if (labels == c).any()]))
