"""Verdicts from paired arms. The test, its level and the reasons stand in docs/verdicts.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from valgap.experiments.arm_result import ArmResult
from valgap.experiments.sequential import Spread, Table, spread
from valgap.stats import paired_mean
from valgap.types import MAX_LOSS, Effect, Measured, RestsOn, Verdict

# Of a cause without effect, this share is confirmed at most: over all its looks, both outcomes and all causes of a diagnosis.
LEVEL = 0.01
# An effect below this is not worth a remedy; "refuted" says that the interval lies below it.
MEANINGFUL_POINTS = 2.0
MEANINGFUL_NATS = 0.1
# By the loss alone no cause is confirmed that moves it by less, however sure that is.
LEAST_NATS = MEANINGFUL_NATS / 2
OUTCOMES = 2  # of which either suffices: right or wrong, and the loss


@dataclass(frozen=True)
class Compared:
    """What two groups of arms answered on the samples that all of them saw: (S, N) each, more or as many seeds before."""

    right: tuple[Table, Table]
    loss: tuple[Table, Table] | None  # bounded, in nats; None where a loss is not known

    def spreads(self) -> tuple[Spread, Spread | None]:
        """The effect in shares right, and in nats by which the loss falls."""
        nats = spread(-self.loss[0], -self.loss[1], MAX_LOSS) if self.loss is not None else None
        return spread(*self.right, 1.0), nats


class Judgement(NamedTuple):
    """A verdict with its reason; of each outcome by itself; which of them a confirmation rests on."""

    verdict: Verdict
    reason: str
    points: Verdict
    nats: Verdict | None
    rests_on: RestsOn


def compared(control: Sequence[ArmResult], treated: Sequence[ArmResult]) -> Compared | None:
    """The answers of both on common samples; None where there are none.

    Images that no loader gives are named by what they hold, which a treatment of images changes: where no name is common, they
    are paired by their place, if all arms have the same labels in the same order.
    """
    right = _common([[a.correct() for a in arms] for arms in (control, treated)])
    if right is None and _in_one_order([*control, *treated]):
        control, treated = ([replace(a, names=()) for a in arms] for arms in (control, treated))
        right = _common([[a.correct() for a in arms] for arms in (control, treated)])
    if right is None:
        return None
    loss = _common([[a.losses() for a in arms] for arms in (control, treated)])
    known = loss is not None and all(np.isfinite(table).all() for table in loss)
    return Compared(right, loss if known else None)


def _in_one_order(arms: Sequence[ArmResult]) -> bool:
    """Whether all validated as many samples, of several labels, in one order of these."""
    targets = [a.samples.target for a in arms if a.samples is not None]
    if len(targets) < len(arms) or not targets or len(np.unique(targets[0])) < 2:
        return False
    return all(np.array_equal(t, targets[0]) for t in targets)


def _common(groups: Sequence[Sequence[dict[str, bool]] | Sequence[dict[str, float]]]) -> tuple[Table, Table] | None:
    rows = [set(row) for group in groups for row in group]
    names = sorted(set.intersection(*rows)) if rows else []
    if not names:
        return None
    before, after = (np.array([[float(row[n]) for n in names] for row in group], np.float64) for group in groups)
    return before, after


def differences(control: Sequence[ArmResult], treated: Sequence[ArmResult]) -> npt.NDArray[np.float64]:
    """(S, N) of -1, 0, 1: gained or lost by the treatment, per seed and validation sample that all arms saw."""
    found = compared(control, treated)
    return found.right[1] - found.right[0] if found is not None else np.zeros((len(control), 0))


def measure(found: Compared, tried: int, look: int = 1) -> Effect:
    """The effect, its p-values corrected for the number of causes tried and for the two outcomes (Bonferroni).

    ``look``: how many times these arms have been compared, with more seeds each time.
    """
    points, nats = found.spreads()
    seeds, samples = found.right[1].shape
    return effect_of(points, nats, tried, look, seeds, samples)


def effect_of(points: Spread, nats: Spread | None, tried: int, look: int, seeds: int, samples: int) -> Effect:
    """The effect of which these are the parts."""
    tests = max(1, tried) * (OUTCOMES if nats is not None else 1)
    low, high = points.interval(look)
    effect = Effect(100 * points.value, 100 * low, 100 * high, min(1.0, points.p_value(look) * tests), seeds, samples, looks=look)
    if nats is None:
        return effect
    fall = Measured(nats.value, *nats.interval(look))
    return replace(effect, nats=fall, nats_p_value=min(1.0, nats.p_value(look) * tests))


def nats(fall: npt.NDArray[np.float64]) -> Measured:
    """The mean of (S, N) nats with its interval."""
    return Measured(*paired_mean(fall)[:3])


def judge_effect(effect: Effect, expected: float) -> Judgement:
    """Verdict and reason; ``expected`` is the sign that the finding predicts (+1 a gain, -1 val was too good)."""
    worst, best = sorted((effect.low * expected, effect.high * expected))
    points: Verdict = "inconclusive"
    if effect.p_value < LEVEL and effect.value * expected > 0:
        points = "confirmed"
    elif best < MEANINGFUL_POINTS:
        points = "refuted"
    by_loss = _by_loss(effect, expected)
    if points == "confirmed":
        rests_on: RestsOn = "both" if by_loss == "confirmed" else "accuracy"
        told = f"the effect is not chance (p = {effect.p_value:.2g} after correction)"
        return Judgement("confirmed", told, points, by_loss, rests_on)
    if by_loss == "confirmed" and best >= 0:
        assert effect.nats is not None
        fall = f"{-effect.nats.value:+.2f} nats ({-effect.nats.high:+.2f} .. {-effect.nats.low:+.2f})"
        told = (
            f"rests on the loss alone: {fall}, p = {effect.nats_p_value:.2g} after correction; points {worst:+.1f} .. {best:+.1f}"
        )
        return Judgement("confirmed", told, points, by_loss, "loss")
    if points == "refuted":
        told = f"removing it gains less than {MEANINGFUL_POINTS:.0f} points (at most {max(best, 0.0):.1f})"
        return Judgement("refuted", told, points, by_loss, "")
    told = (
        f"the interval reaches from {worst:+.1f} to {best:+.1f} points: too wide for a verdict with "
        f"{effect.seeds} seeds and {effect.samples} validation samples"
    )
    return Judgement("inconclusive", told, points, by_loss, "")


def _by_loss(effect: Effect, expected: float) -> Verdict | None:
    fall, p_value = effect.nats, effect.nats_p_value
    if fall is None or p_value is None:
        return None
    if p_value < LEVEL and fall.value * expected >= LEAST_NATS:
        return "confirmed"
    return "refuted" if max(fall.low * expected, fall.high * expected) < MEANINGFUL_NATS else "inconclusive"


def beats_placebo(against: Effect, effect: Effect, expected: float) -> tuple[Verdict, str]:
    """Verdict and words on a treatment whose effect is real: does it do more than as many samples drawn at random?"""
    alone = effect.value - against.value
    text = f"as many samples at random {alone:+.1f}"
    if judge_effect(against, expected).verdict == "confirmed":
        return "confirmed", text
    return "inconclusive", f"{text}, which is not clearly less (p = {against.p_value:.2g})"


def reproduces(recorded: float, n: int, control: Sequence[ArmResult]) -> tuple[bool, str]:
    """Whether the control arms repeat the recorded accuracy (0..1) within their own noise, and the figures in words."""
    reached = np.array([c.accuracy for c in control])
    mean = float(reached.mean())
    spread_of = float(reached.std(ddof=1)) if len(reached) > 1 else 0.0
    # Three seeds tell little of the spread, so it is not taken for less than half the noise of n samples.
    floor = 0.5 * float(np.sqrt(max(mean * (1 - mean), 1e-4) / max(n, 1)))
    allowed = 3.0 * max(spread_of, floor) * float(np.sqrt(1 + 1 / len(reached)))
    text = f"control {mean:.1%} (spread over seeds {spread_of:.1%}), recorded {recorded:.1%}, allowed difference {allowed:.1%}"
    return abs(recorded - mean) <= allowed, text
