"""What an effect of shortened arms would be in whole ones: the same, give or take what effects move by on the way.

Effects grow or shrink as a training goes on, in no direction that their beginning tells. By how much they had moved at full
length was measured over programs with a planted fault (benchmarks/effect_course.py): the further, the more often the length
doubles. That is joined with the effect's own interval as two independent margins are, as the root of the sum of squares.
"""

from __future__ import annotations

import math

from valgap.types import Effect, Measured

# 95 % of effects move by no more than this, times the root of how often their training doubles: points; nats, of which a part is
# a share of the effect. `make bench-effect-course` tells how often the interval then holds the effect of the whole training.
MOVE_POINTS = 15.0
LEAST_MOVE_NATS, MOVE_SHARE = 0.1, 0.5
MOST_POINTS = 100.0


def at_full_length(effect: Effect) -> tuple[Measured | None, Measured | None]:
    """(points, nats) of the effect in whole arms, with 95 % intervals; None where its arms were whole, or nats are not known."""
    if effect.trained >= 1.0 or effect.trained <= 0.0:
        return None, None
    doublings = math.sqrt(-math.log2(effect.trained))
    points = _wider(Measured(effect.value, effect.low, effect.high), MOVE_POINTS * doublings)
    points = Measured(points.value, max(-MOST_POINTS, points.low), min(MOST_POINTS, points.high))
    if effect.nats is None:
        return points, None
    return points, _wider(effect.nats, (LEAST_MOVE_NATS + MOVE_SHARE * abs(effect.nats.value)) * doublings)


def _wider(given: Measured, by: float) -> Measured:
    """With both ends further away."""
    low, high = (math.hypot(end - given.value, by) for end in (given.low, given.high))
    return Measured(given.value, given.value - low, given.value + high)
