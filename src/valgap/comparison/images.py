"""The images as they reach the model: each beside itself where reading is fixed, by their statistics where it is random."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from valgap.comparison.aligned import WORDS, Aligned
from valgap.types import Departure, FloatArray, InputStats, Pass, Phase, Quantity, RunRecord, Stage

# Fingerprints of one image differ by less than this share of their spread over images: rounding.
ROUNDING = 1e-4
# Of an image that is read anew at random, its fingerprint moves from pass to pass by more than this share of the spread.
MOVES = 1e-3
# Means and spreads over sampled batches differ by more than chance and by more than these shares of the spread.
SIGNS, MEAN_APART, SPREAD_APART = 6.0, 0.05, 0.08
# The spread of so few images is less sure: this over the root of the images looked at.
SPREAD_ERROR, LOOKED_AT = 0.6, 16
# How far random reading moves an image differs by more than this factor, and by more than chance.
STRENGTH_APART = 1.25
FEWEST = 30


def image_departures(first: RunRecord, second: RunRecord, aligned: Aligned, phase: Phase) -> Iterator[Departure]:
    """In what the images of a phase differ, as far as chance does not make the difference; at most one."""
    passes = [[p for p in run.of_phase(phase) if p.inputs is not None] for run in (first, second)]
    if not passes[0] or not passes[1]:
        return
    stats = [own[0].inputs for own in passes]
    assert stats[0] is not None and stats[1] is not None
    found = _told(stats[0], stats[1])
    if not found:
        sides = _Fingerprints(aligned, 0, passes[0]), _Fingerprints(aligned, 1, passes[1])
        beside = all(s.fixed and s.repeated for s in sides) and not _same_random(first, second, passes)
        if beside and phase in aligned.by_place and _same_in_another_order(*sides):
            aligned.disordered.add(phase)
            return
        found = _by_image(*sides) if beside else _by_statistics(*sides, stats[0], stats[1])
    if not found:
        return
    quantity: Quantity = "images" if phase == "train" else "val images"
    stage: Stage = "read_train" if phase == "train" else "read_val"
    evidence = tuple(_statistics(stats[0], stats[1])) + tuple(_transforms(first, second, passes))
    text = f"{WORDS[phase]} images reach the model otherwise: {found}"
    yield Departure(quantity, stage, "substance", text, evidence=evidence, told=True)


def _told(a: InputStats, b: InputStats) -> str:
    if a.shape != b.shape:
        return f"{'x'.join(map(str, a.shape))}, then {'x'.join(map(str, b.shape))}"
    if a.dtype != b.dtype:
        return f"{a.dtype}, then {b.dtype}"
    return ""


class _Fingerprints:
    """The fingerprints of a run's images over its passes of a phase."""

    def __init__(self, aligned: Aligned, side: int, passes: Sequence[Pass]) -> None:
        self.seen: dict[int, list[float]] = {}
        for one in passes:
            own = zip(aligned.keys(side, one).tolist(), one.samples.fingerprint.tolist(), strict=True)
            for key, mark in own:
                if key >= 0 and np.isfinite(mark):
                    self.seen.setdefault(key, []).append(mark)
        marks = np.array([v[0] for v in self.seen.values()])
        self.spread = float(marks.std()) if len(marks) > 1 else 0.0
        again = [np.ptp(v[:2]) for v in self.seen.values() if len(v) > 1]
        self.repeated = len(again)
        # Without a second pass nothing says that reading is random; what reads at random differs in all images then.
        self.fixed = not again or float(np.median(again)) <= MOVES * max(self.spread, 1e-12)


def _same_in_another_order(a: _Fingerprints, b: _Fingerprints) -> bool:
    """Whether samples without a name are the same images at other places: a folder is listed otherwise elsewhere."""
    x, y = (np.sort([v[0] for v in side.seen.values()]) for side in (a, b))
    return len(x) == len(y) and bool((np.abs(x - y) <= ROUNDING * max(a.spread, 1e-12)).all()) and bool(_by_image(a, b))


def _by_image(a: _Fingerprints, b: _Fingerprints) -> str:
    """Both read an image in one way: each image beside itself."""
    common = sorted(a.seen.keys() & b.seen.keys())
    if len(common) < 2:
        return ""
    x, y = (np.array([side.seen[k][0] for k in common]) for side in (a, b))
    scale = max(float(x.std()), float(y.std()), 1e-12)
    apart = np.abs(x - y) / scale
    other = apart > ROUNDING
    if other.mean() < 0.01 and other.sum() < 3:
        return ""
    by = f"the median of these by {np.median(apart[other]):.2g} of their spread"
    return f"{int(other.sum())} of {len(common)} of the same images differ, {by}"


def _by_statistics(a: _Fingerprints, b: _Fingerprints, x: InputStats, y: InputStats) -> str:
    if a.repeated and b.repeated and a.fixed != b.fixed:
        words = {True: "always the same", False: "drawn anew in every epoch"}
        return f"an image is {words[a.fixed]}, then {words[b.fixed]}"
    scale = np.maximum(np.maximum(x.std, y.std), 1e-9)
    error = np.sqrt(_error(x) ** 2 + _error(y) ** 2)
    apart = np.abs(x.mean - y.mean)
    if x.mean.shape == y.mean.shape and (apart > np.maximum(SIGNS * error, MEAN_APART * scale)).any():
        return "their mean is another one"
    sure = SPREAD_APART + SPREAD_ERROR / np.sqrt(LOOKED_AT * max(1, min(x.sampled_batches, y.sampled_batches)))
    if x.std.shape == y.std.shape and (np.abs(np.log(np.maximum(x.std, 1e-9) / np.maximum(y.std, 1e-9))) > sure).any():
        few = min(len(x.batch_means), len(y.batch_means)) < 2
        return "" if few else "their spread is another one"
    ratio, error_of_ratio = _strength(a, b)
    if abs(ratio) > np.log(STRENGTH_APART) and abs(ratio) > SIGNS * error_of_ratio:
        return f"random reading moves an image {np.exp(abs(ratio)):.2g} times as {'far' if ratio > 0 else 'little'} as before"
    return ""


def _error(stats: InputStats) -> FloatArray:
    """(C,) standard error of the mean over the sampled batches; infinite for a single one."""
    means = stats.batch_means
    if len(means) < 2:
        return np.full(means.shape[1:], np.inf)
    return np.asarray(means.std(0, ddof=1) / np.sqrt(len(means)))


def _strength(a: _Fingerprints, b: _Fingerprints) -> tuple[float, float]:
    """(log of the second's over the first's movement of the same images between two passes, its standard error)."""
    common = [k for k in a.seen.keys() & b.seen.keys() if len(a.seen[k]) > 1 and len(b.seen[k]) > 1]
    if len(common) < FEWEST:
        return 0.0, float("inf")
    moves = [np.array([abs(s.seen[k][0] - s.seen[k][1]) for k in common]) for s in (a, b)]
    means = [float(m.mean()) for m in moves]
    if min(means) <= 0:
        return 0.0, float("inf")
    errors = [m.std() / np.sqrt(len(m)) / mean for m, mean in zip(moves, means, strict=True)]
    return float(np.log(means[1] / means[0])), float(np.hypot(*errors))


def _statistics(a: InputStats, b: InputStats) -> Iterator[str]:
    for name in ("mean", "std"):
        x, y = (", ".join(f"{v:.3g}" for v in np.asarray(getattr(s, name))[:4]) for s in (a, b))
        if x != y:
            yield f"{name} by channel: {x}; then {y}"


def _same_random(first: RunRecord, second: RunRecord, passes: Sequence[Sequence[Pass]]) -> bool:
    """Whether both have the same transform, and it is random: what it gives in all epochs is then one seed's doing."""
    data = [run.datasets.get(own[0].dataset) for run, own in zip((first, second), passes, strict=True)]
    steps = [d.transform or () if d is not None else () for d in data]
    return any(s.random for s in steps[0]) and [s.text for s in steps[0]] == [s.text for s in steps[1]]


def _transforms(first: RunRecord, second: RunRecord, passes: Sequence[Sequence[Pass]]) -> Iterator[str]:
    data = [run.datasets.get(own[0].dataset) for run, own in zip((first, second), passes, strict=True)]
    steps = [[s.text for s in d.transform] if d is not None and d.transform else [] for d in data]
    for side, word in ((0, "first"), (1, "second")):
        for text in steps[side]:
            if text not in steps[1 - side]:
                yield f"transform of the {word} run only: {text}"
