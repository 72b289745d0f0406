"""Stages that nobody suspects, tried all at once: their references in the place of the program's own, then halves.

Most lines of the account are near zero. So the references of all these stages are tried together; only where that changes
the result is one half tried without the other, and so on. A gain and a cost of the same size would hide each other: a stage of
which the comparison says that it costs, or gains, though too little or too vaguely for a suspicion, is tried by itself; one that
costs first of all.

Chance is corrected for by the hierarchy: all stages together are one question, a half of them one of two, since it is asked
only where the whole that holds it was real. Stages that are tried by themselves use one half of the level, the others the other
half. Seeds are added while a group is undecided and there is time.

Source: group testing by halves (Dorfman 1943, Hwang 1972); hierarchical testing (Meinshausen 2008).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from valgap.experiments.contest import LOOKS
from valgap.experiments.verdicts import LEAST_NATS, MEANINGFUL_POINTS
from valgap.types import STAGES, CaseStages, Effect, Intervention, Measured, Stage, StageShare

# Nothing else speaks for them: chance may call one at fault once in a hundred diagnoses, over all groups, looks and outcomes.
UNSUSPECTED_LEVEL = 0.01
FUTILE = 0.5  # a p-value (after correction) above which a second look gives a group up: nothing speaks for more seeds
# Their references change what is read; the one of training reads validation as well.
READING: frozenset[Stage] = frozenset({"read_train", "read_val"})
# Recorded weights are enough for these.
UNTRAINED: tuple[Stage, ...] = ("read_val", "forward")
# (stages, groups of that size, number of the look, seeds) -> the effect of their references, beyond what is confirmed, its
# p-values corrected for groups and looks; None where it cannot be measured (any more).
Try = Callable[[Sequence[Stage], int, int, int], Effect | None]


@dataclass(frozen=True)
class Screened:
    """What the references of some stages change, ``alone`` where one was tried without others."""

    shares: tuple[StageShare, ...]
    alone: Mapping[Stage, Effect]
    # Groups that give points back, where there was no time to tell which of their stages does; and those that seem to.
    among: tuple[tuple[tuple[Stage, ...], Effect], ...] = ()
    likely: tuple[tuple[tuple[Stage, ...], Effect], ...] = ()


def screen(stages: Sequence[Stage], tried: Try, first: Sequence[Stage] = (), last: Sequence[Stage] = ()) -> Screened:
    """Which of the stages change the result by their references, and which do not.

    ``first``: of these, those that seem to cost something, the costliest first; ``last``: those that seem to be a gain.
    """
    shares: list[StageShare] = []
    alone: dict[Stage, Effect] = {}
    among: list[tuple[tuple[Stage, ...], Effect]] = []
    likely: list[tuple[tuple[Stage, ...], Effect]] = []
    rest = tuple(s for s in stages if s not in first and s not in last)
    single, parts = [*first, *last], 2 if (first or last) and rest else 1
    waiting = [*((s,) for s in first), *([rest] if rest else []), *((s,) for s in last)]
    while waiting:
        group = waiting.pop(0)
        if any(s.told == "cost" and s.stage in READING for s in shares):
            group = tuple(s for s in group if s not in READING)  # what reads both sides would give the same back again
        if not group:
            continue
        alike = parts * (len(single) if group[0] in single else -(-len(rest) // len(group)))
        effect = _decided(group, alike, tried)
        if effect is None:
            continue
        points = Measured(effect.value, effect.low, effect.high)
        direction = _direction(effect)
        if direction and len(group) > 1:
            half = len(group) // 2
            waiting[:0] = [group[:half], group[half:]]
            among += [(group, effect)] if direction > 0 else []
        elif direction:
            alone[group[0]] = effect
            shares.append(StageShare(group[0], points, effect.nats, "cost" if direction > 0 else "gain"))
        elif _is_none(effect):
            shares += [StageShare(s, points, effect.nats, "none", group if len(group) > 1 else ()) for s in group]
        elif effect.value >= MEANINGFUL_POINTS and effect.low > 0:
            likely.append((group, effect))
    undecided = [(g, e) for g, e in among if not any(s.told == "cost" and s.stage in g for s in shares)]
    least = [(g, e) for g, e in undecided if not any(set(o) < set(g) for o, _ in undecided)]
    return Screened(tuple(shares), alone, tuple(least), tuple(likely))


def hints(stages: Sequence[Stage], compared: CaseStages) -> tuple[list[Stage], list[Stage]]:
    """(those that seem to cost something, the costliest first; those that seem to be a gain), by the comparison alone."""
    known = {s: p for s in stages if (p := compared.compared(s).points) is not None}
    costs = [s for s, p in known.items() if p.low > 0 and p.value >= MEANINGFUL_POINTS]
    gains = [s for s, p in known.items() if p.high < 0 and p.value <= -MEANINGFUL_POINTS]
    return sorted(costs, key=lambda s: -known[s].value), gains


def _decided(group: Sequence[Stage], alike: int, tried: Try) -> Effect | None:
    """The effect of a group's references, with as many seeds as decide it or as there is time for."""
    effect = None
    for look, seeds in enumerate(LOOKS, 1):
        new = tried(group, alike, look, seeds)
        if new is None or (effect is not None and new.seeds <= effect.seeds):
            break
        effect = new
        if _direction(effect) or _is_none(effect) or (look > 1 and min(_p_values(effect)) > FUTILE):
            break
    return effect


def _direction(effect: Effect) -> int:
    """1: the references do better; -1: worse; 0: not to be told.

    Accuracy says how much, and accuracy or loss that it is no chance: a sharper or softer loss alone is no stage at fault.
    """
    if abs(effect.value) < MEANINGFUL_POINTS:
        return 0
    return (1 if effect.value > 0 else -1) if min(_p_values(effect)) < UNSUSPECTED_LEVEL else 0


def _p_values(effect: Effect) -> list[float]:
    """Of accuracy; of the loss too, where it goes the same way."""
    sign = 1 if effect.value > 0 else -1
    if effect.nats is None or effect.nats_p_value is None or effect.nats.value * sign < LEAST_NATS:
        return [effect.p_value]
    return [effect.p_value, effect.nats_p_value]


def _is_none(effect: Effect) -> bool:
    """Whether the references change no answers that matter."""
    return effect.low > -MEANINGFUL_POINTS and effect.high < MEANINGFUL_POINTS


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
