"""Stages that nobody suspects, tried all at once: their references in the place of the program's own, then halves.

Most lines of the account are near zero. So the references of all these stages are tried together; only where that changes
the result is one half tried without the other, and so on. A gain and a cost of the same size would hide each other.

Source: group testing by halves (Dorfman 1943, Hwang 1972).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from valgap.experiments.verdicts import MEANINGFUL_POINTS
from valgap.types import STAGES, CaseStages, Effect, Intervention, Measured, Stage, StageShare

# Nothing else speaks for them: chance may call one at fault once in a hundred diagnoses, after the correction for the tries.
UNSUSPECTED_LEVEL = 0.01
# Their references change what is read; the one of training reads validation as well.
READING: tuple[Stage, ...] = ("read_train", "read_val")
# Recorded weights are enough for these.
UNTRAINED: tuple[Stage, ...] = ("read_val", "forward")
# The effect of the references of some stages, beyond what is confirmed; None where it cannot be measured (any more).
Try = Callable[[Sequence[Stage]], Effect | None]


@dataclass(frozen=True)
class Screened:
    """What the references of some stages change, ``alone`` where one was tried without others."""

    shares: tuple[StageShare, ...]
    alone: Mapping[Stage, Effect]


def screen(stages: Sequence[Stage], tried: Try) -> Screened:
    """Which of the stages change the result by their references, and which do not."""
    shares: list[StageShare] = []
    alone: dict[Stage, Effect] = {}
    waiting = [tuple(stages)] if stages else []
    while waiting:
        group = waiting.pop(0)
        effect = tried(group)
        if effect is None:
            continue
        points = Measured(effect.value, effect.low, effect.high)
        real = effect.p_value < UNSUSPECTED_LEVEL and abs(effect.value) >= MEANINGFUL_POINTS
        if real and len(group) > 1:
            half = len(group) // 2
            waiting += [group[:half], group[half:]]
        elif real:
            alone[group[0]] = effect
            shares.append(StageShare(group[0], points, effect.nats, "cost" if effect.value > 0 else "gain"))
        elif effect.low > -MEANINGFUL_POINTS and effect.high < MEANINGFUL_POINTS:
            shares += [StageShare(s, points, effect.nats, "none", group if len(group) > 1 else ()) for s in group]
    return Screened(tuple(shares), alone)


def most_tries(stages: Sequence[Stage]) -> int:
    """How many groups can be tried at most: what chance is corrected for."""
    return max(1, 2 * len(stages) - 1)


def references(stages: CaseStages | None, confirmed: Sequence[Stage | None], trained: bool) -> dict[Stage, Intervention]:
    """The reference of each stage that can be put in its place and where no cause was confirmed.

    ``trained``: whether the re-runs train the whole program; else what needs no training is left.
    """
    found: dict[Stage, Intervention] = {}
    read = any(stage in READING for stage in confirmed)
    for stage in STAGES if stages is not None else ():
        if stage in confirmed or (read and stage in READING) or not (trained or stage in UNTRAINED):
            continue
        own = stages.reference(stage) if stages is not None else None
        if isinstance(own, Intervention):
            found[stage] = own
    return found


def in_place(stages: Sequence[Stage], known: Mapping[Stage, Intervention]) -> list[Intervention]:
    """The references of these stages together: that of reading for training reads validation in the same way."""
    return [known[s] for s in stages if not (s == "read_val" and "read_train" in stages)]
