"""Intervals, paired tests and label matching. Pure functions on arrays; no torch, nothing of ours."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, ndtri, stdtr, stdtrit

Value = TypeVar("Value", float, npt.NDArray[np.float64])


def wilson_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """(low, high) of a binomial share, both 0..1, by Wilson's score; (0, 1) when n is 0.

    Source: Wilson 1927; recommended for small n by Brown, Cai, DasGupta 2001.
    """
    if n <= 0:
        return 0.0, 1.0
    z = float(ndtri(0.5 + level / 2))
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def paired_p_value(before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_]) -> float:
    """Two-sided p-value that two classifiers are equally often right on the same samples, 0..1.

    Exact McNemar test on the samples where just one of them is right; both arrays have shape (N,).
    Source: McNemar 1947.
    """
    gained = int((~before & after).sum())
    lost = int((before & ~after).sum())
    return min(1.0, 2 * binomial_tail(min(gained, lost), gained + lost))


def binomial_tail(few: int, n: int) -> float:
    """Probability of ``few`` or fewer heads in ``n`` tosses of a fair coin, 0..1; 1 for no toss."""
    return float(bdtr(few, n, 0.5)) if n else 1.0


def paired_difference(
    before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_], level: float = 0.95
) -> tuple[float, float, float]:
    """(difference, low, high) of the share right, after minus before, each -1..1; paired normal interval.

    Both arrays have shape (N,); the spread is that of the per-sample difference. (nan, -1, 1) when N is 0.
    """
    n = len(before)
    if n == 0:
        return float("nan"), -1.0, 1.0
    delta = after.astype(np.float64) - before.astype(np.float64)
    z = float(ndtri(0.5 + level / 2))
    # One pseudo-observation keeps the width above zero when all pairs agree.
    spread = math.sqrt((delta.var() * n + 1.0 / n) / n)
    half = z * spread / math.sqrt(n)
    value = float(delta.mean())
    return value, max(-1.0, value - half), min(1.0, value + half)


def chance_above(value: float, least: float, error: float) -> float:
    """Chance (0..1) that what was measured as ``value``, with this standard error of a normal distribution, exceeds ``least``."""
    return 0.5 * (1 + math.erf((value - least) / (max(error, 1e-9) * math.sqrt(2))))


def confusion_matrix(
    target: npt.NDArray[np.integer], prediction: npt.NDArray[np.integer], num_classes: int
) -> npt.NDArray[np.int64]:
    """Counts (C, C): rows are targets, columns predictions. Entries outside 0..C-1 are left out."""
    keep = (target >= 0) & (target < num_classes) & (prediction >= 0) & (prediction < num_classes)
    flat = target[keep].astype(np.int64) * num_classes + prediction[keep]
    return np.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes)


def best_label_permutation(
    target: npt.NDArray[np.integer], prediction: npt.NDArray[np.integer], num_classes: int
) -> tuple[npt.NDArray[np.int64], float]:
    """(mapping, accuracy): the one-to-one renaming of targets that agrees best with the predictions.

    ``mapping`` has shape (C,): target c is renamed ``mapping[c]``; accuracy is 0..1 on the same samples, so it is
    optimistic on few samples. Solved exactly as an assignment problem (Kuhn 1955).
    """
    from scipy.optimize import linear_sum_assignment  # takes a third of a second to import

    counts = confusion_matrix(target, prediction, num_classes)
    rows, columns = linear_sum_assignment(-counts)
    total = counts.sum()
    mapping = np.arange(num_classes, dtype=np.int64)
    mapping[rows] = columns
    return mapping, float(counts[rows, columns].sum() / total) if total else float("nan")


def right_when_renamed(
    target: npt.NDArray[np.integer], prediction: npt.NDArray[np.integer], num_classes: int
) -> npt.NDArray[np.bool_]:
    """(N,) whether each is right under the best renaming of targets, found on the other half of its class' samples."""
    rank = np.zeros(len(target), np.int64)  # of each sample within its class, so that both halves have every class
    for c in np.unique(target):
        rank[target == c] = np.arange(int((target == c).sum()))
    halves = [rank % 2 == i for i in (0, 1)]
    right = np.zeros(len(target), np.bool_)
    for fit, judge in (halves, halves[::-1]):
        mapping, _ = best_label_permutation(target[fit], prediction[fit], num_classes)
        right[judge] = mapping[target[judge]] == prediction[judge]
    return right


def paired_effect(delta: npt.NDArray[np.float64], level: float = 0.95) -> tuple[float, float, float, float]:
    """(mean, low, high, p-value) of paired differences (S, N) over S seeds and N samples, two-sided.

    The variance of the mean is that over samples (of the mean over seeds) plus that over seeds (of the mean over
    samples), with Satterthwaite's degrees of freedom. Both random draws are counted, the first partly twice: the
    interval errs on the wide side. (nan, -1, 1, 1) when there is nothing to compare.
    """
    seeds, samples = delta.shape
    if not seeds or not samples:
        return float("nan"), -1.0, 1.0, 1.0
    if not delta.any():
        # Nothing changed anywhere: the rule of three bounds what so many samples could have missed.
        return 0.0, -3.0 / samples, 3.0 / samples, 1.0
    value, low, high, p_value = paired_mean(delta, level)
    return value, max(-1.0, low), min(1.0, high), p_value


def paired_mean(delta: npt.NDArray[np.float64], level: float = 0.95) -> tuple[float, float, float, float]:
    """The same of differences of any size, such as losses: what did not change in any digit has no width."""
    seeds, samples = delta.shape
    if not seeds or not samples:
        return float("nan"), -math.inf, math.inf, 1.0
    value = float(delta.mean())
    if not delta.any():
        return 0.0, 0.0, 0.0, 1.0
    by_sample = float(delta.mean(0).var(ddof=1)) / samples if samples > 1 else 1.0
    by_seed = float(delta.mean(1).var(ddof=1)) / seeds if seeds > 1 else by_sample
    variance = by_sample + by_seed
    if variance == 0.0:
        return value, value, value, 0.0
    freedom = variance**2 / (by_sample**2 / max(1, samples - 1) + by_seed**2 / max(1, seeds - 1))
    error = math.sqrt(variance)
    half = float(stdtrit(freedom, 0.5 + level / 2)) * error
    p_value = 2.0 * float(stdtr(freedom, -abs(value) / error))
    return value, value - half, value + half, p_value


def shapley_values(players: Sequence[str], value: Callable[[frozenset[str]], Value]) -> dict[str, Value]:
    """Each player's exact Shapley value; they sum to value(all) - value(none). Calls ``value`` on all subsets.

    Values may be numbers or arrays of one shape (then everything goes by element). Source: Shapley 1953.
    """
    n = len(players)
    out: dict[str, Any] = dict.fromkeys(players, 0.0)
    for player in players:
        others = [p for p in players if p != player]
        for size in range(n):
            weight = math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
            for chosen in itertools.combinations(others, size):
                without = frozenset(chosen)
                out[player] = out[player] + weight * (value(without | {player}) - value(without))
    return out


def sampled_shapley_values(
    orders: Sequence[Sequence[str]], value: Callable[[frozenset[str]], Value | None]
) -> dict[str, Value] | None:
    """Shapley values estimated from some orders of the players; they too sum to value(all) - value(none).

    Orders in which a value is None are left out; None where none is left. Source: Castro, Gomez, Tejada 2009.
    """
    total: dict[str, Any] = {}
    used = 0
    for order in orders:
        steps: list[Any] = [value(frozenset(order[:k])) for k in range(len(order) + 1)]
        if any(s is None for s in steps):
            continue
        used += 1
        for k, player in enumerate(order):
            total[player] = total.get(player, 0.0) + (steps[k + 1] - steps[k])
    return {player: gain / used for player, gain in total.items()} if used else None


def grouped_orders(groups: Sequence[Sequence[str]], most: int, seed: int = 0) -> list[tuple[str, ...]]:
    """Orders of all players in which those of a group stand together: all of them, or ``most`` random ones where there are more.

    Shapley values over such orders are Owen's: a group's sum is what the game of groups alone gives it. Of random orders, each
    second one is the reverse of the one before; the first is the given order. Source: Owen 1977.
    """
    count = math.factorial(len(groups)) * math.prod(math.factorial(len(g)) for g in groups)
    if count <= most:
        inside = [list(itertools.permutations(g)) for g in groups]
        every = (itertools.product(*(inside[i] for i in order)) for order in itertools.permutations(range(len(groups))))
        return [tuple(itertools.chain(*parts)) for parts in itertools.chain(*every)]
    draw = np.random.default_rng(seed)
    orders: list[tuple[str, ...]] = []
    while len(orders) < most:
        shuffled = [groups[i] for i in draw.permutation(len(groups))] if orders else groups
        parts = [tuple(draw.permutation(list(g)).tolist()) if orders else tuple(g) for g in shuffled]
        order = tuple(itertools.chain(*parts))
        orders += [order, order[::-1]]
    return orders[:most]


def best_row_cross_fitted(right: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(N,): whether (or how often) each sample is right in the row that is best on the *other* half of the samples.

    ``right`` (E, N) holds rows to choose from, say epochs. Choosing the best of E by the samples that then score it would
    flatter it; each half is scored by the row that the other half chose (the earliest of equals).
    """
    return np.asarray(right[rows_cross_fitted(right), np.arange(right.shape[1])])


def rows_cross_fitted(right: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """(N,): the row that is best on the other half of the samples, for each sample of ``right`` (E, N)."""
    halves = np.arange(right.shape[1]) % 2
    rows = np.zeros(right.shape[1], np.int64)
    for half in (0, 1):
        if (halves != half).any():
            rows[halves == half] = int(right[:, halves != half].mean(1).argmax())
    return rows
