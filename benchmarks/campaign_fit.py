"""Fit how sure findings are told to be on programs that were asked once; writes src/valgap/confidence.py.

python benchmarks/campaign_fit.py [--label after] [--dry-run]

Each program counts once, with the first thing that is told of it at .5 and above: its confidence as the checks claim it, and
whether its stage is right. Strangers' programs count as they were asked for the first time. The campaign's calibration half
is told beside them and does not count: what was mended for its programs makes the checks look surer than they are of the
next ones. A line between the log odds is fitted by maximum likelihood, with a prior that stands for about as much as twenty
programs: no change. The held-out half has no say; benchmarks/results/campaign.md tells its calibration error.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import strangers
from campaign.plan import programs
from campaign.report import UNSOUND, Case, cases, claimed
from scipy.optimize import minimize

from valgap.confidence import LEAST, MAP, MOST, calibrated, log_odds

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
    return claimed(first.confidence, MAP), first.right


def told_of_strangers() -> list[tuple[float, bool]]:
    """The same of strangers' programs as they were asked for the first time, before anything was mended for them."""
    rows, found = strangers.read_rows(), []
    for one in strangers.strangers():
        row, lost = rows.get(("first asked", one.name, 0)), strangers.cost(one, rows)
        told_first = strangers.told(row)[:1] if row is not None else []
        if row is not None and told_first and (not one.stages or (lost is not None and lost >= strangers.LEAST_COST)):
            stage, confidence, _ = told_first[0]
            found.append((claimed(confidence, row.get("map", (0.0, 1.0))), stage in one.stages))
    return found


def fitted(pairs: list[tuple[float, bool]]) -> tuple[float, float]:
    """(offset, slope) of the line between the log odds."""
    claims = np.array([log_odds(c) for c, _ in pairs])
    right = np.array([r for _, r in pairs], float)

    def loss(line: Any) -> float:
        odds = line[0] + math.exp(line[1]) * claims
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
    others = told_of_strangers()
    for name, of in (("strangers, first asked", others), ("calibration half, mended for", pairs)):
        print(f"{name}: {len(of)} told, {sum(r for _, r in of)} right")
    if not others:
        parser.error("no stranger's program has an answer yet: run benchmarks/strangers.py --label 'first asked' first")
    line = fitted(others)
    print(f"offset {line[0]}, slope {line[1]}")
    print(f"Brier {error(others, (0.0, 1.0)):.3f} as claimed, {error(others, line):.3f} as told (within {LEAST} .. {MOST})")
    if not given.dry_run:
        text = re.sub(r"^MAP = \(.*\)$", f"MAP = ({line[0]}, {line[1]})", TARGET.read_text(), flags=re.MULTILINE)
        TARGET.write_text(text)


if __name__ == "__main__":
    main()
