"""Distribution shift: alarms on random re-splits of one set, and real shifts.

    python benchmarks/shift.py DATA         DATA holds clothing_mini, with its test/ from another source

A re-split draws train and val again from clothing_mini's own train and val. An alarm is a finding of DAT106 with confidence
of .5 or more; p <= .05 counts the raw tests at that level.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from valgap.checks.distribution_shift import CHECK
from valgap.features import Measurements
from valgap.features.shift import shift
from valgap.features.source import rows_of_path
from valgap.types import Attributes, Case, Finding, ImageRows, RunRecord

RESULTS = Path(__file__).parent / "results" / "shift.md"
SPLITS = 200
VAL_SHARE = 0.3


class Chosen:
    """Some of the images of Measurements, under another split; what was measured on the files is used again."""

    def __init__(self, images: Measurements, places: np.ndarray, is_val: np.ndarray) -> None:
        order = np.concatenate([places[~is_val], places[is_val]])
        rows = images.rows
        self.rows = ImageRows(
            tuple(rows.names[i] for i in order),
            tuple(rows.paths[i] for i in order),
            rows.labels[order],
            np.sort(is_val),
            rows.classes,
        )
        assert images.embeddings is not None
        self.embeddings = images.embeddings[order]
        numbers = {k: v[order] for k, v in images.attributes.numbers.items()}
        words = {k: tuple(v[i] for i in order) for k, v in images.attributes.words.items()}
        self.attributes = Attributes(numbers, words)
        self.missing: dict[str, str] = {}
        self.held_out = None
        self.shift = shift(self.embeddings, self.attributes, self.rows)


def judged(images: Chosen) -> tuple[bool, str, float]:
    """(alarm, summary, p-value of the features)."""
    outcome = CHECK.detect(Case(RunRecord.empty("x"), images))  # type: ignore[arg-type]
    alarm = isinstance(outcome, Finding) and outcome.confidence >= 0.5
    return alarm, getattr(outcome, "summary", ""), images.shift.p_value  # type: ignore[union-attr]


def main() -> None:
    data = Path(sys.argv[1]) / "clothing_mini"
    own = Measurements(rows_of_path(data))
    rng = np.random.default_rng(0)
    n = len(own.rows.names)
    results = [judged(Chosen(own, np.arange(n), rng.permutation(n) < VAL_SHARE * n)) for _ in range(SPLITS)]
    alarms, small = sum(r[0] for r in results), sum(r[2] <= 0.05 for r in results)
    lines = ["| split | alarm | what it says |", "|---|---|---|"]
    lines.append(f"| {SPLITS} random re-splits of {n} images | {alarms / SPLITS:.1%} ({small / SPLITS:.1%} at p <= .05) | |")
    print(lines[-1], flush=True)
    test = Measurements(replace(rows_of_path(data / "test"), classes=own.rows.classes))
    joined = Measurements(
        ImageRows(
            own.rows.names + test.rows.names,
            own.rows.paths + test.rows.paths,
            np.concatenate([own.rows.labels, test.rows.labels]),
            np.arange(n + len(test.rows.names)) >= n,
            own.rows.classes,
        )
    )
    many = joined.rows
    alarm, says, p_value = judged(Chosen(joined, np.arange(len(many.names)), many.is_val))
    lines.append(f"| clothing_mini's test as val | {'yes' if alarm else 'no'} (p {p_value:.3f}) | {says} |")
    keep = np.flatnonzero((own.rows.labels != 8) | (rng.random(n) < 0.15) | ~own.rows.is_val)
    alarm, says, p_value = judged(Chosen(own, keep, own.rows.is_val[keep]))
    lines.append(
        f"| class {own.rows.classes[8]} thinned to 15 % in val | {'yes' if alarm else 'no'} (p {p_value:.3f}) | {says} |"
    )
    print("\n".join(lines[-2:]), flush=True)
    RESULTS.write_text("# Shift\n\n`make bench-shift DATA=FOLDER`\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
