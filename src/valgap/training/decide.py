"""What `valgap train` decides by itself, each by training images alone: what learns, flips, the weight of classes."""

from __future__ import annotations

import copy
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader

from valgap.engine import Rows
from valgap.training.fit import Fit, Watch
from valgap.training.images import StoredDataset
from valgap.training.probe import Probe, fit_head, nll
from valgap.training.stages import FROM_PROBE, STAGES

if TYPE_CHECKING:
    from valgap.training.program import _Program

HELD_OUT_SHARE = 0.2
MIN_HELD_OUT = 20
# With so accurate a probe on held-out train there is nothing that more could show on a fifth of it.
PROBE_ENOUGH = 0.99
# 50 steps tell no more. A gain demanded, or a lower loss, refuses most of what pays (`make bench-trial`): a
# trial is to refuse what does clear harm, a fall of accuracy by more than this.
TRIAL_STEPS = 25
HARM = 0.05
# Flips are used where the probe of the unflipped is right on at most this share fewer of the flipped held-out images.
# Our choice: photographs of things are expected to lose a point or two, digits many.
FLIP_LOSS = 0.04
FLIP_IMAGES = 200
UNEVEN = 3.0
ADJUSTMENT_GAIN = 0.02


@dataclass
class Decision:
    """What learns (head, last, last2 or all), whether images are flipped, what is added to the logits (C,), and why.

    ``backbone_rate`` is the rate of the pretrained layers that was better in a trial; None where none was tried.
    """

    unfreeze: str
    flip: bool
    bias: npt.NDArray[np.float64]
    reasons: list[str]
    backbone_rate: float | None = None

    def write(self, file: Path) -> None:
        """Keep it for a resumed run; a full disk is told by the loop."""
        body = {**vars(self), "bias": self.bias.tolist()}
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.with_suffix(".part").write_text(json.dumps(body), encoding="utf-8")
            file.with_suffix(".part").replace(file)
        except OSError:
            pass

    @classmethod
    def read(cls, file: Path) -> Decision:
        """What was kept."""
        body = json.loads(file.read_text(encoding="utf-8"))
        return cls(**{**body, "bias": np.array(body["bias"])})


def flip_keeps_class(program: _Program, features: npt.NDArray[np.float32], reasons: list[str]) -> bool:
    """Whether mirrored training images keep their class under a probe that saw neither them nor their originals."""
    labels = program.train_labels
    halves = _halves(labels, program.seed)
    if halves is None:
        return False
    fit, out = halves
    out = out[:FLIP_IMAGES]
    assert program.probe is not None
    weight, bias = fit_head(features[fit], labels[fit], program.num_classes, program.probe.inverse_l2)
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


def what_learns(program: _Program, features: npt.NDArray[np.float32], reasons: list[str]) -> tuple[str, float | None]:
    """(what learns, at which rate of the pretrained layers): the stages behind the cut, where a trial of them does no harm.

    That is, where it is about as accurate as the probe on held-out train. At the usual rate first, which is high, then at a
    tenth. Else ``head``.
    """
    probe, labels = program.probe, program.train_labels
    assert probe is not None
    counts = np.bincount(labels, minlength=program.num_classes)
    held_out = round(HELD_OUT_SHARE * len(labels))
    if program.train_rows is None:
        reasons.append("the head alone learns: this network cannot be cut in two (--unfreeze all trains all)")
        return "head", None
    if probe.train_accuracy >= PROBE_ENOUGH or counts.min() < 5 or held_out < MIN_HELD_OUT or held_out < program.num_classes:
        few = probe.train_accuracy < PROBE_ENOUGH
        reasons.append(f"the head alone learns: {'too few images to compare' if few else 'the probe is nearly perfect on train'}")
        return "head", None
    unfreeze = program.behind_cut()
    stages, verb = STAGES[unfreeze], "learns" if unfreeze == "last" else "learn"
    asked = program.recipe.backbone_rate
    gains: list[str] = []
    for rate in (FROM_PROBE, FROM_PROBE / 10) if asked is None else (asked,):
        tried = try_stages(program, features, held_out, TRIAL_STEPS, rate)
        if tried is None:
            reasons.append(f"the head alone learns: the time limit leaves no room to try {stages}")
            return "head", None
        gains.append(f"{100 * tried.gain:+.1f}")
        found = f"on {held_out} held-out training images training {stages} is {', at a lower rate '.join(gains)} points"
        if tried.harmless:
            reasons.append(f"{stages} {verb} too: {found} against the probe")
            return unfreeze, rate
    reasons.append(f"the head alone learns: {found} against the probe")
    return "head", None


@dataclass(frozen=True)
class Trial:
    """What a short training behind the cut gained on held-out training images: accuracy 0..1, and fall of the loss, nats."""

    gain: float
    loss_fall: float

    @property
    def harmless(self) -> bool:
        """Whether it is about as accurate as the probe: so short a trial shows mostly chance, and little of what is gained."""
        return self.gain >= -HARM - 1e-9


def try_stages(
    program: _Program, features: npt.NDArray[np.float32], held_out: int, steps: int, rate: float = FROM_PROBE
) -> Trial | None:
    """What is behind the cut, trained for so many steps, against the probe on held-out images; None where time is up."""
    labels, probe = program.train_labels, program.probe
    assert probe is not None
    fit, out = _held_out(labels, held_out, program.seed)
    weight, bias = fit_head(features[fit], labels[fit], program.num_classes, probe.inverse_l2)
    before = features[out] @ weight.T + bias
    after = _trial(program, fit, out, weight, bias, steps, rate)
    if after is None:
        return None
    gain = float((after.argmax(1) == labels[out]).mean() - (before.argmax(1) == labels[out]).mean())
    return Trial(gain, nll(before, labels[out]) - nll(after, labels[out]))


def _trial(
    program: _Program,
    fit: npt.NDArray[np.int64],
    out: npt.NDArray[np.int64],
    weight: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    steps: int,
    rate: float,
) -> npt.NDArray[np.float32] | None:
    """Logits (M, C) of the held-out images after a short training of a copy of these stages; None where time is up."""
    rows = program.train_rows
    assert rows is not None
    # The copy's head is found again by its place among the modules.
    tail = program.tail()
    place = next(i for i, m in enumerate(tail.modules()) if m is program.head)
    learner = copy.deepcopy(tail)
    head = list(learner.modules())[place]
    learner.requires_grad_(True)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))  # type: ignore[operator]
        head.bias.copy_(torch.from_numpy(bias))  # type: ignore[operator]
    remaining = program.limit - time.monotonic()
    watch = Watch(time.monotonic() + remaining / 3 if math.isfinite(remaining) else math.inf, program.bar)
    recipe = program.recipe.model_copy(update={"average_best": 1, "patience": 1000, "ema": 0.0, "backbone_rate": rate})
    sets = [
        StoredDataset(
            [program.train_paths[i] for i in part],
            program.train_labels[part],
            program.table.classes,
            [Rows(rows.array, rows.places[part])],
            program.seed,
        )
        for part in (fit, out)
    ]
    order = torch.Generator()
    loaders: list[DataLoader[tuple[torch.Tensor, int]]] = [
        DataLoader(sets[0], recipe.batch_size, shuffle=True, generator=order),
        DataLoader(sets[1], recipe.batch_size),
    ]
    epochs = max(1, min(math.ceil(steps / len(loaders[0])), program.planned_epochs()))
    trial = Fit(learner, head, loaders[0], loaders[1], recipe, epochs, program.seed, None, watch)
    trial.total_steps = min(steps, trial.total_steps)
    for epoch in range(1, epochs + 1):
        if trial.train_epoch(epoch) is None:
            return None
    return np.asarray(trial.validate())


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
