"""The test of an effect whose seeds are added while its verdict is open, and the interval that goes with it.

Images are drawn once, seeds one after the other. So the margin of an effect has two parts, joined as the root of the sum of
their squares: one for the images at the plain level, one for the seeds at a level that is shared out among the looks. A look
``k`` is given ``1 / (k (k + 1))`` of the level, which comes to the whole of it however many looks follow: whenever one stops,
for whatever reason, the level holds (Lan and DeMets 1983; a union
bound, so nothing is assumed of how looks depend on each other).

Each part is taken at its own degrees of freedom, rather than their sum at Satterthwaite's: three seeds that happen to lie close
together are then not taken for a proof that seeds do not matter. That is wider than need be, never narrower (Cochran and Cox 1950
in this way for two means). What both arms of one seed share is taken out where it helps: the seeds' part is the smaller one of
that of the differences by seed and that of two independent samples, each at half of its level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

Table = npt.NDArray[np.float64]  # (S, N): of S seeds and N images
SMALLEST_LEVEL = 1e-12


@dataclass(frozen=True)
class Spread:
    """An effect with the variances of its mean: of the draw of images, and of seeds, in two readings."""

    value: float
    images: float
    image_freedom: int
    seeds: tuple[tuple[float, int], ...]  # (variance, degrees of freedom); none: no seed matters
    most: float = math.inf  # what an image can change by, where that is bounded

    def half_width(self, level: float, look: int = 1) -> float:
        """Half of the interval's width at ``level`` (.05: 95 %), at the look of this number."""
        by_images = _margin(self.images, self.image_freedom, level)
        share = spent(look) * level / max(1, len(self.seeds))
        by_seeds = min((_margin(v, f, share) for v, f in self.seeds), default=0.0)
        return math.hypot(by_images, by_seeds)

    def p_value(self, look: int = 1) -> float:
        """The smallest level at which the interval of this look leaves out zero."""
        size = abs(self.value)
        if size == 0.0 or self.half_width(1.0 - 1e-9, look) >= size:
            return 1.0
        low, high = math.log(SMALLEST_LEVEL), 0.0
        if self.half_width(SMALLEST_LEVEL, look) < size:
            return SMALLEST_LEVEL
        for _ in range(24):
            middle = (low + high) / 2
            low, high = (low, middle) if self.half_width(math.exp(middle), look) < size else (middle, high)
        return math.exp(high)

    def interval(self, look: int = 1, level: float = 0.05) -> tuple[float, float]:
        """(low, high)."""
        half = self.half_width(level, look)
        return max(-self.most, self.value - half), min(self.most, self.value + half)

    def after(self, more: int, seeds: int) -> Spread:
        """What is to be expected with ``more`` seeds beside these: the seeds' part smaller, all else as it is."""
        shrunk = tuple((v * seeds / (seeds + more), f + (i + 1) * more) for i, (v, f) in enumerate(self.seeds))
        return Spread(self.value, self.images, self.image_freedom, shrunk, self.most)


def spent(look: int) -> float:
    """The share of the level that the look of this number (1, 2, ...) may use; all of them come to 1."""
    return 1.0 / (look * (look + 1))


def spread(before: Table, after: Table, most: float = math.inf) -> Spread:
    """The effect of (S, N) answers beside those of the first S of (at least as many) seeds without the change.

    Values are such that the effect is ``after - before``. Equal seeds on both sides are paired, further ones before are not.
    """
    seeds, images = after.shape
    gains = after.mean(0) - before.mean(0)
    value = float(gains.mean())
    paired = after - before[:seeds]
    if not paired.any() and len(before) == seeds:
        # Nothing changed anywhere: the rule of three bounds what so many images could have missed, where a change is bounded.
        missed = 3.0 / images * most if math.isfinite(most) else 0.0
        return Spread(0.0, (missed / quantile(images - 1, 0.05)) ** 2, max(1, images - 1), (), most)
    by_images = float(gains.var(ddof=1)) / images if images > 1 else math.inf
    if seeds < 2 or not (np.ptp(before, 0).any() or np.ptp(after, 0).any()):
        return Spread(value, by_images, max(1, images - 1), (), most)
    of_pairs = float(paired.mean(1).var(ddof=1)) / seeds
    own = [table.mean(1) for table in (before, after)]
    freedom = len(before) + seeds - 2
    pooled = sum(float(((m - m.mean()) ** 2).sum()) for m in own) / freedom * (1 / len(before) + 1 / seeds)
    apart = sum(float(m.var(ddof=1)) / len(m) for m in own)
    return Spread(value, by_images, max(1, images - 1), ((of_pairs, seeds - 1), (max(pooled, apart), freedom)), most)


def _margin(variance: float, freedom: int, level: float) -> float:
    return quantile(freedom, level) * math.sqrt(variance)


def quantile(freedom: int, level: float) -> float:
    """Two-sided: what Student's t exceeds in size with this chance."""
    return -float(stdtrit(max(1, freedom), max(level, SMALLEST_LEVEL) / 2))
