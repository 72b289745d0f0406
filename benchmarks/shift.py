"""Distribution shift: alarms on random re-splits, real shifts of what images show, and shifts of class shares.

    python benchmarks/shift.py DATA         DATA holds clothing_mini (with its test/ from another source) and hymenoptera_256

A re-split draws train and val again from a set's own train and val. An alarm is a finding of DAT106 with confidence of .5 or
more; p <= .05 counts the raw tests at that level. The solar cells are those of the package elpv-dataset (valgap[demo]).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from valgap.checks.data.distribution_shift import CHECK
from valgap.features import Measurements
from valgap.features.shift import shift
from valgap.features.source import rows_of_path
from valgap.types import Attributes, Case, Finding, ImageRows, RunRecord

RESULTS = Path(__file__).parent / "results" / "shift.md"
SPLITS = 200
DRAWS = 20
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


def solar_cells() -> tuple[ImageRows, np.ndarray]:
    """(functional and defective cells, whether each is polycrystalline)."""
    import elpv_dataset

    data = Path(str(elpv_dataset.__file__)).parent / "data"
    lines = [line.split() for line in (data / "labels.csv").read_text().splitlines()]
    sure = [(name, float(p) > 0.5, kind == "poly") for name, p, kind in lines if abs(float(p) - 0.5) > 0.4]
    rows = ImageRows(
        tuple(n for n, _, _ in sure),
        tuple(str(data / n) for n, _, _ in sure),
        np.array([int(d) for _, d, _ in sure]),
        np.zeros(len(sure), bool),
        ("functional", "defective"),
    )
    return rows, np.array([p for _, _, p in sure])


def resplit(images: Measurements, places: np.ndarray, rng: np.random.Generator) -> Chosen:
    """Train and val drawn anew from those images."""
    return Chosen(images, places, rng.permutation(len(places)) < VAL_SHARE * len(places))


def random_splits(name: str, images: Measurements, places: np.ndarray) -> str:
    """A row of Markdown: how often random re-splits alarm."""
    rng = np.random.default_rng(0)
    results = [judged(resplit(images, places, rng)) for _ in range(SPLITS)]
    alarms, small = (np.mean([r[0] for r in results]), np.mean([r[2] <= 0.05 for r in results]))
    return f"| {SPLITS} random re-splits of {len(places)} images of {name} | {alarms:.1%} ({small:.1%} at p <= .05) | |"


def one_shift(name: str, images: Measurements, places: np.ndarray, is_val: np.ndarray) -> str:
    """A row of Markdown: one real shift."""
    alarm, says, p_value = judged(Chosen(images, places, is_val))
    return f"| {name} | {'yes' if alarm else 'no'} (p {p_value:.3f}) | {says} |"


def share_shift(name: str, images: Measurements, kept: Callable[[np.ndarray], np.ndarray]) -> str:
    """A row of Markdown: validation images kept with a probability that depends on the class, several draws."""
    rng = np.random.default_rng(1)
    rows = images.rows
    found, says = [], ""
    for _ in range(DRAWS):
        places = np.flatnonzero(~rows.is_val | (rng.random(len(rows.names)) < kept(rows.labels)))
        alarm, told, _ = judged(Chosen(images, places, rows.is_val[places]))
        found.append(alarm)
        says = told if alarm else says
    return f"| {name} | {sum(found)} of {DRAWS} draws | {says} |"


def joined(own: Measurements, other: ImageRows) -> Measurements:
    """All images of the first as train, those of the second as val."""
    rows = own.rows
    return Measurements(
        ImageRows(
            rows.names + other.names,
            rows.paths + other.paths,
            np.concatenate([rows.labels, other.labels]),
            np.arange(len(rows.names) + len(other.names)) >= len(rows.names),
            rows.classes,
        )
    )


def main() -> None:
    """Print the table and write it."""
    data = Path(sys.argv[1])
    clothes = Measurements(rows_of_path(data / "clothing_mini"))
    insects = Measurements(rows_of_path(data / "hymenoptera_256"))
    solar_rows, poly = solar_cells()
    solar = Measurements(solar_rows)
    every = np.arange(len(clothes.rows.names))
    test = joined(clothes, replace(rows_of_path(data / "clothing_mini" / "test"), classes=clothes.rows.classes))
    mono = np.flatnonzero(~poly)
    lines = []
    for row in (
        lambda: random_splits("clothing_mini", clothes, every),
        lambda: random_splits("hymenoptera_256", insects, np.arange(len(insects.rows.names))),
        lambda: random_splits("solar cells, monocrystalline", solar, mono),
        lambda: one_shift("clothing_mini's test as val", test, np.arange(len(test.rows.names)), test.rows.is_val),
        lambda: one_shift("train on mono-, val on polycrystalline cells", solar, np.arange(len(poly)), poly),
        lambda: share_shift("one class of ten thinned to 15 % in val", clothes, lambda y: np.where(y == 8, 0.15, 1.0)),
        lambda: share_shift("two classes of ten thinned to 15 %", clothes, lambda y: np.where(y >= 8, 0.15, 1.0)),
        lambda: share_shift("half of the classes thinned to 40 %", clothes, lambda y: np.where(y >= 5, 0.4, 1.0)),
        lambda: share_shift("long tail: each class .75 times the one before", clothes, lambda y: 0.75**y),
    ):
        lines.append(row())
        print(lines[-1], flush=True)
    head = "| split | alarm | what it says |\n|---|---|---|\n"
    RESULTS.write_text("# Shift\n\n`make bench-shift DATA=FOLDER`\n\n" + head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
