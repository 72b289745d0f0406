"""Verdicts from paired arms. The test, its level and the reasons stand in docs/verdicts.md."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from valgap.experiments.runner import ArmResult
from valgap.stats import paired_effect, paired_mean
from valgap.types import Effect, Measured, Verdict

LEVEL = 0.05
# An effect below this is not worth a remedy; "refuted" says that the interval lies below it.
MEANINGFUL_POINTS = 2.0


def differences(control: Sequence[ArmResult], treated: Sequence[ArmResult]) -> npt.NDArray[np.float64]:
    """(S, N) of -1, 0, 1: gained or lost by the treatment, per seed and validation sample that all arms saw."""
    common: set[str] | None = None
    for arm in (*control, *treated):
        common = set(arm.correct()) if common is None else common & set(arm.correct())
    names = sorted(common or ())
    rows = []
    for c, t in zip(control, treated, strict=True):
        before, after = c.correct(), t.correct()
        rows.append([float(after[n]) - float(before[n]) for n in names])
    return np.array(rows, np.float64).reshape(len(control), len(names))


def fallen(control: Sequence[ArmResult], treated: Sequence[ArmResult]) -> npt.NDArray[np.float64] | None:
    """(S, N) nats by which the loss falls under the treatment, of the same samples; None where a loss is not known."""
    pairs = [(c.losses(), t.losses()) for c, t in zip(control, treated, strict=True)]
    names = sorted(set.intersection(*(set(losses) for pair in pairs for losses in pair))) if pairs else []
    delta = np.array([[before[n] - after[n] for n in names] for before, after in pairs], np.float64)
    return delta.reshape(len(pairs), len(names)) if names and np.isfinite(delta).all() else None


def measure(delta: npt.NDArray[np.float64], tried: int, fall: npt.NDArray[np.float64] | None = None) -> Effect:
    """The effect of (S, N) differences, its p-value corrected for the number of causes tried (Bonferroni).

    ``fall``: the nats by which the loss falls, of the same samples.
    """
    value, low, high, p_value = paired_effect(delta)
    corrected = min(1.0, p_value * max(1, tried))
    seeds, samples = delta.shape
    return Effect(100 * value, 100 * low, 100 * high, corrected, seeds, samples, nats(fall) if fall is not None else None)


def nats(fall: npt.NDArray[np.float64]) -> Measured:
    """The mean of (S, N) nats with its interval."""
    return Measured(*paired_mean(fall)[:3])


def judge_effect(effect: Effect, expected: float) -> tuple[Verdict, str]:
    """Verdict and reason; ``expected`` is the sign that the finding predicts (+1 a gain, -1 val was too good)."""
    toward = effect.value * expected
    worst, best = sorted((effect.low * expected, effect.high * expected))
    if effect.p_value < LEVEL and toward > 0:
        return "confirmed", f"the effect is not chance (p = {effect.p_value:.2g} after correction)"
    if best < MEANINGFUL_POINTS:
        return "refuted", f"removing it gains less than {MEANINGFUL_POINTS:.0f} points (at most {max(best, 0.0):.1f})"
    return "inconclusive", (
        f"the interval reaches from {worst:+.1f} to {best:+.1f} points: too wide for a verdict with "
        f"{effect.seeds} seeds and {effect.samples} validation samples"
    )


def beats_placebo(against: Effect, effect: Effect, expected: float) -> tuple[Verdict, str]:
    """Verdict and words on a treatment whose effect is real: does it do more than as many samples drawn at random?"""
    alone = effect.value - against.value
    text = f"as many samples at random {alone:+.1f}"
    if against.p_value < LEVEL and against.value * expected > 0:
        return "confirmed", text
    return "inconclusive", f"{text}, which is not clearly less (p = {against.p_value:.2g})"


def reproduces(recorded: float, n: int, control: Sequence[ArmResult]) -> tuple[bool, str]:
    """Whether the control arms repeat the recorded accuracy (0..1) within their own noise, and the figures in words."""
    reached = np.array([c.accuracy for c in control])
    mean = float(reached.mean())
    spread = float(reached.std(ddof=1)) if len(reached) > 1 else 0.0
    # Three seeds tell little of the spread, so it is not taken for less than half the noise of n samples.
    floor = 0.5 * float(np.sqrt(max(mean * (1 - mean), 1e-4) / max(n, 1)))
    allowed = 3.0 * max(spread, floor) * float(np.sqrt(1 + 1 / len(reached)))
    text = f"control {mean:.1%} (spread over seeds {spread:.1%}), recorded {recorded:.1%}, allowed difference {allowed:.1%}"
    return abs(recorded - mean) <= allowed, text
