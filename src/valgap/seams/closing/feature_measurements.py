"""Measurements on the features that re-scoring gathered: probes, and the head trained again."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable
from typing import Any

import torch

from valgap.seams.closing.attempts import Attempts, OutOfTimeError
from valgap.seams.closing.head import (
    CURVE_DRAWS,
    Gathered,
    Head,
    curve_numbers,
    fitting_s,
    probe_numbers,
    put_back,
    start_numbers,
)
from valgap.seams.closing.head_replay import replay_numbers, settings_of
from valgap.seams.looking.views import forward

# Seconds: the least in which training the head again says anything.
MIN_REPLAY_S = 0.2
# (optimizer class, settings of its group, learning rate of each step) of what trained a parameter
TrainingOf = Callable[[torch.Tensor], tuple[str, dict[str, Any], list[float]] | None]


def measure_features(
    train: Gathered, val: Gathered, head: Head, attempts: Attempts, training_of: TrainingOf, batch_size: int
) -> None:
    """Write the probes' and the replay's numbers, as far as the time allows; ``batch_size`` is that of the training."""
    if head.layer is None:
        attempts.skip("probe", "no linear layer of torch's own gives the answers")
        return
    if not train.features or not val.features:
        attempts.skip("probe", "no features of both training and validation images were gathered")
        return
    fits = 1 + bool(train.first_statistics) + bool(train.middle) + bool(train.before)
    attempts.numbers("probe", lambda: probe_numbers(train, val), fitting_s(train, fits))
    replay = functools.partial(_replay, train, val, head, training_of, batch_size, attempts.ending)
    attempts.numbers("replay", replay, MIN_REPLAY_S)
    pairs = head.first_features()
    if pairs:
        start = functools.partial(_start_probe, pairs, train, val, head, attempts.ending)
        attempts.numbers("probe_start", start, fitting_s(train, 2))
    # What is learnt of the images is in later features: only those of the first weights can be probed by parts of them.
    sides = [g.start if pairs else g.features for g in (train, val)]
    if all(sides):
        curve = functools.partial(curve_numbers, sides[0], train.target(len(sides[0])), sides[1], val.target(len(sides[1])))
        attempts.numbers("curve", curve, fitting_s(train, 2 * CURVE_DRAWS))


def _start_probe(
    pairs: list[tuple[torch.Tensor, torch.Tensor]], train: Gathered, val: Gathered, head: Head, deadline: float
) -> dict[str, float] | str:
    """The features once more, under the first weights."""
    with put_back(pairs), head.listening():
        for images, other in itertools.zip_longest(val.images, train.images):
            if time.perf_counter() > deadline:
                raise OutOfTimeError("the time budget ended")
            for gathered, batch in ((val, images), (train, other)):
                if batch is None:
                    continue
                forward(head.model, batch, "eval")
                features = head.caught(len(batch))
                if features is not None:
                    gathered.start.append(features)
    return start_numbers(train, val)


def _replay(
    train: Gathered, val: Gathered, head: Head, training_of: TrainingOf, batch_size: int, deadline: float
) -> dict[str, float] | str:
    """The head trained again on the features, as recorded and with one change each."""
    first = head.model.initial_state
    if head.layer is None or first is None or not train.features or not val.features:
        return "no linear head, no first weights or no features"
    names = [head.name_of(n) for n in ("weight", "bias")]
    trained = training_of(head.layer.weight)
    if names[0] is None or trained is None:
        return "the optimizer of the head is not known"
    recorded = settings_of(*trained, head.dropout)
    if recorded is None:
        return f"the optimizer {trained[0]} is not repeated here"
    weight, bias = (first.get(n) if n is not None else None for n in names)
    if weight is None:
        return "the first weights of the head were not kept"
    if (val.target(len(val.features)) < 0).any():
        return "some validation images have no label"
    both = [(torch.cat(g.features).numpy(), g.target(len(g.features))) for g in (train, val)]
    return replay_numbers(both[0], both[1], (weight, bias), recorded, batch_size, deadline)
