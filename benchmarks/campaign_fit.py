"""Fit how sure findings are told to be on the calibration half of the campaign; writes src/valgap/confidence.py.

python benchmarks/campaign_fit.py [--label after] [--dry-run]

Each program counts once, with the first thing that is told of it at .5 and above: its confidence as the checks claim it, and
whether its stage is right. A line between the log odds is fitted by maximum likelihood, with a prior that stands for about as
much as twenty programs: no change. The held-out half has no say; benchmarks/results/campaign.md tells its calibration error.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from campaign.plan import programs
from campaign.report import UNSOUND, Case, cases
from scipy.optimize import minimize

from valgap.confidence import LEAST, MOST, calibrated, log_odds

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent / "src" / "valgap" / "confidence.py"
ROWS = HERE / "results" / "campaign.jsonl"
# Standard deviations of the prior, of the offset and of the logarithm of the slope.
PRIOR = (0.7, 0.35)


def told(case: Case) -> tuple[float, bool] | None:
    """(what the checks claim, whether it is right) of the first thing told; None where nothing counts."""
    asked = case.demanded or (case.program.healthy and case.points < UNSOUND)
    if not asked or not case.sure:
        return None
    first = case.sure[0]
    offset, slope = case.row.get("map", (0.0, 1.0))
    odds = (log_odds(first.confidence) - offset) / slope
    return 1 / (1 + math.exp(-odds)), first.right


def fitted(pairs: list[tuple[float, bool]]) -> tuple[float, float]:
    """(offset, slope) of the line between the log odds."""
    claimed = np.array([log_odds(c) for c, _ in pairs])
    right = np.array([r for _, r in pairs], float)

    def loss(line: Any) -> float:
        odds = line[0] + math.exp(line[1]) * claimed
        said = np.logaddexp(0, odds) - right * odds
        return float(said.sum() + 0.5 * ((line[0] / PRIOR[0]) ** 2 + (line[1] / PRIOR[1]) ** 2))

    found = minimize(loss, np.zeros(2), method="Nelder-Mead").x
    return round(float(found[0]), 3), round(float(math.exp(found[1])), 3)


def error(pairs: list[tuple[float, bool]], line: tuple[float, float]) -> float:
    """Mean squared difference of confidence and outcome (Brier)."""
    return float(np.mean([(calibrated(c, line) - r) ** 2 for c, r in pairs]))


def main() -> None:
    """Fit, say it, write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--label", default="after")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be written")
    given = parser.parse_args()
    lines = ROWS.read_text().splitlines()
    rows = {(r["label"], r["name"], r.get("seed", 0)): r for r in map(json.loads, lines)}
    half = [p for p in programs() if p.half == "calibration"]
    pairs = [pair for case in cases(half, rows, given.label) if (pair := told(case)) is not None]
    if not pairs:
        parser.error("no program of the calibration half has an answer yet: run benchmarks/campaign.py --half calibration first")
    line = fitted(pairs)
    print(f"{len(pairs)} programs, {sum(r for _, r in pairs)} right; offset {line[0]}, slope {line[1]}")
    print(f"Brier {error(pairs, (0.0, 1.0)):.3f} as claimed, {error(pairs, line):.3f} as told (within {LEAST} .. {MOST})")
    if not given.dry_run:
        text = re.sub(r"^MAP = \(.*\)$", f"MAP = ({line[0]}, {line[1]})", TARGET.read_text(), flags=re.MULTILINE)
        TARGET.write_text(text)


if __name__ == "__main__":
    main()
