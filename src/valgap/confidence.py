"""How sure a finding is told to be: what its check claims, mapped so that of findings told with p, a share p is right.

The map (Platt 1999: a line between the log odds) is fitted on strangers' programs as they were asked for the first time, by
``make fit-confidences``, which writes it into this file; see docs/campaign.md. Only what is told is mapped: a hint stays one, and
nothing becomes a hint.
"""

from __future__ import annotations

import math

# Written by benchmarks/campaign_fit.py: offset and slope of the log odds.
MAP = (-0.509, 0.597)
SUSPECTED = 0.5
LEAST, MOST = 0.51, 0.99


def calibrated(claimed: float, line: tuple[float, float] = MAP) -> float:
    """The confidence (0..1) to tell for what a check claims; hints (below .5) as they are."""
    if claimed < SUSPECTED or line == (0.0, 1.0):
        return claimed
    odds = line[0] + line[1] * log_odds(claimed)
    return min(MOST, max(LEAST, 1 / (1 + math.exp(-odds))))


def log_odds(confidence: float) -> float:
    """Of a confidence, cut at .999: nothing is certain."""
    sure = min(0.999, max(0.001, confidence))
    return math.log(sure / (1 - sure))
