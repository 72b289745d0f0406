"""How the cost of a fault goes over the epochs of a training; writes results/effect_course.md.

python benchmarks/effect_course.py FOLDER_WITH_THE_DATA_SETS [--minutes 9] [--limit 24]

Programs of the campaign's calibration half with a fault that re-runs must train to see, of four epochs or more, in the order of
their names (which are hashes). Each and its sound twin are run in three seeds without valgap; every validation pass leaves its
answers. So the effect after k epochs, with the interval that re-runs would give it, stands beside that after all of them.
A row a program goes to results/effect_course.jsonl at once, so that one calls this until nothing is left.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from campaign.data import prepare, write_tables
from campaign.harness import bare
from campaign.plan import Program, digest, programs
from campaign.report import share, table
from proof_power import LEAST_NATS, LEAST_POINTS, costs, read_rows

from valgap.experiments.full_length import LEAST_MOVE_NATS, MOVE_POINTS, MOVE_SHARE
from valgap.experiments.sequential import spread
from valgap.experiments.verdicts import LEVEL, OUTCOMES

HERE = Path(__file__).resolve().parent
ROWS = HERE / "results" / "effect_course.jsonl"
TABLE = HERE / "results" / "effect_course.md"
SEEDS = 3
HELD_OUT = 5
LEAST_EPOCHS, FIRST = 4, 2  # as long as arms are at least: valgap.experiments.plan.MIN_EPOCHS
# What needs no training is shown by recorded weights, however long the program is.
UNTRAINED = {"read_val", "measure", "choose"}
# Of a verdict of one cause by either outcome (valgap.experiments.verdicts).
VERDICT = LEVEL / OUTCOMES
Row = dict[str, Any]
INTRODUCTION = """Made by `make bench-effect-course DATA=FOLDER`: programs of the campaign's calibration half whose fault costs
5 points or .1 nat and takes a training to show, of four epochs or more, in the order of their names (hashes). Each and its sound
twin ran in three seeds without valgap, and every validation left its answers; effects are the twin's less the program's,
intervals those that re-runs would tell at their first look. A unit is the root of how often the training doubles until its end;
in nats, times a least one and a share of the effect (`src/valgap/experiments/full_length.py`)."""
IMAGES = """By what the half-width of an effect at the level of a verdict is multiplied, geometric means over programs (their
number): with twice as many images as half of them; with a fourth seed at its look, for a third more time; and where a fifth of
the training images is held out in all arms and scored as well."""
Answers = npt.NDArray[np.float64]  # (S, E, 2, N): of seeds, epochs and images, right (0, 1) and loss in nats


def chosen(cost: dict[str, tuple[float, float | None]]) -> list[Program]:
    """The programs, in the order of their names."""
    half = [p for p in programs() if p.half == "calibration" and p.name in cost and not p.healthy]
    costly = [p for p in half if cost[p.name][0] >= LEAST_POINTS or (cost[p.name][1] or 0) >= LEAST_NATS]
    long = [p for p in costly if p.base.setup.epochs >= LEAST_EPOCHS and not set(p.stages) <= UNTRAINED]
    return sorted(long, key=lambda p: p.name)


def answers(program: Program, keep: Path) -> Answers | None:
    """Of every seed and epoch; kept once they are known. None where the program fails, or validates otherwise."""
    kept = keep / "courses" / f"{program.name}.npy"
    if kept.exists():
        return np.asarray(np.load(kept)) if kept.stat().st_size else None
    kept.parent.mkdir(parents=True, exist_ok=True)
    seeds = [one_run(program, seed, keep) for seed in range(SEEDS)]
    try:
        found = np.array([s[: program.base.setup.epochs] for s in seeds], np.float64)
    except ValueError:
        found = np.zeros(0)
    if found.ndim != 4 or found.shape[1] < program.base.setup.epochs:
        kept.touch()
        return None
    np.save(kept, found)
    return found


def one_run(program: Program, seed: int, keep: Path) -> list[list[list[float]]]:
    """By epoch, right and loss of every image, in the program's order."""
    where = Path(tempfile.mkdtemp())  # forks of this process would remove a TemporaryDirectory when they end
    os.environ["CAMPAIGN_COURSE"] = str(where / "course.jsonl")
    bare(program, seed, keep)
    passes: dict[int, list[list[float]]] = defaultdict(lambda: [[], []])
    for row in read_rows(where / "course.jsonl"):
        passes[row["pass"]][0] += row["right"]
        passes[row["pass"]][1] += row["loss"]
    shutil.rmtree(where)
    return [passes[k] for k in sorted(passes)]


def row_of(program: Program, own: Answers, twin: Answers) -> Row:
    """The effect of mending it after each epoch (points, nats), and what more images or more seeds would bring at the end.

    ``half``: as many seeds on every second image.
    """
    kinds = "+".join(k.name for k in program.kinds if not k.sound)
    by_epoch = [[told(own[:, e, o], twin[:, e, o], o) for o in (0, 1)] for e in range(own.shape[1])]
    half = [told(own[:, -1, o, ::2], twin[:, -1, o, ::2], o) for o in (0, 1)]
    stages = "/".join(program.stages)
    row = {"name": program.name, "kinds": kinds, "stages": stages, "images": own.shape[3], "effects": by_epoch, "half": half}
    return row | {"twin": accuracy(twin)}


def accuracy(of: Answers) -> float:
    """In the end, 0..1."""
    return round(float(of[:, -1, 0].mean()), 4)


def with_held_out(keep: Path) -> Path:
    """The data with every fifth training image in validation instead: what arms that hold images out would train and score."""
    folder = keep / "held"
    if not (folder / "data" / "done").exists():
        shutil.copytree(keep / "data", folder / "data", dirs_exist_ok=True)
        for data in (f for f in (folder / "data").iterdir() if (f / "train").is_dir()):
            for group in sorted((data / "train").iterdir()):
                for file in sorted(group.iterdir())[::HELD_OUT]:
                    file.rename(data / "val" / group.name / f"held_{file.name}")
            write_tables(data)
    return folder


def told(own: npt.NDArray[np.float64], twin: npt.NDArray[np.float64], outcome: int) -> dict[str, float]:
    """The effect of a (S, N) change in one outcome as re-runs would tell it: half-widths at 95 %, and at the level of a verdict.

    ``more``: with a fourth seed, at its look. ``by_images``: the part of the images alone.
    """
    found = spread(100 * own, 100 * twin, 100.0) if outcome == 0 else spread(-own, -twin, 20.0)
    still = replace(found, seeds=())
    figures = {
        "value": found.value,
        "half": found.half_width(0.05),
        "verdict": found.half_width(VERDICT),
        "by_images": still.half_width(VERDICT),
        "more": found.after(1, SEEDS).half_width(VERDICT, 2),
    }
    return {k: round(v, 4) for k, v in figures.items()}


def moves(row: Row, outcome: int) -> list[Row]:
    """After each number of epochs that arms may have: how far the effect still moves, in the unit of ``full_length``."""
    effects, last = [e[outcome] for e in row["effects"]], len(row["effects"])
    found = []
    for k in range(FIRST, last):
        one, moved = effects[k - 1], effects[-1]["value"] - effects[k - 1]["value"]
        unit = math.sqrt(math.log2(last / k)) * (1.0 if outcome == 0 else LEAST_MOVE_NATS + MOVE_SHARE * abs(one["value"]))
        found.append({"of": k / last, "moved": moved, "units": abs(moved) / unit, "unit": unit, **one})
    return found


def quantile(rows: Sequence[Row], outcome: int) -> float:
    """So many units hold 95 % of moves, each program counted once."""
    each = [(m["units"], 1 / len(found)) for r in rows if (found := moves(r, outcome)) for m in found]
    each.sort()
    total, so_far = sum(w for _, w in each), 0.0
    for units, weight in each:
        so_far += weight
        if so_far >= 0.95 * total:
            return units
    return each[-1][0]


def covered(rows: Sequence[Row], outcome: int, factor: Callable[[Row], float]) -> tuple[str, float]:
    """(how often the interval, widened by so many units, holds the effect of the whole training; its median half-width)."""
    hits, halves = [], []
    for row in rows:
        for m in moves(row, outcome):
            half = math.hypot(m["half"], factor(row) * m["unit"])
            hits.append(abs(m["moved"]) <= half)
            halves.append(half)
    return share(hits), float(np.median(halves))


def write_table(rows: Sequence[Row]) -> None:
    """results/effect_course.md."""
    text = ["# How the cost of a fault goes over a training", "", INTRODUCTION, "", "## From short arms to whole ones", ""]
    lines = []
    for outcome, (name, factor) in enumerate((("points", MOVE_POINTS), ("nats", 1.0))):
        others = {r["name"]: quantile([o for o in rows if o is not r], outcome) for r in rows}
        ways = {
            "own interval alone": lambda row: 0.0,
            "as the ledger tells it": lambda row, factor=factor: factor,
            "widened as the other programs say": lambda row, others=others: others[row["name"]],
        }
        for way, by in ways.items():
            held, half = covered(rows, outcome, by)
            lines.append([name, way, held, f"{half:.2f}"])
        lines.append([name, f"95 % of moves are within {quantile(rows, outcome):.2f} units", "", ""])
    text += table(["", "interval of an effect after 2 epochs or more", "holds the effect after all", "median half-width"], lines)
    heads = ["program", "fault", "stage", "points after each epoch", "nats"]
    told_rows = [[r["name"], r["kinds"], r["stages"], *(_course(r, o) for o in (0, 1))] for r in rows]
    text += ["## Program by program", "", *table(heads, told_rows), "## More images, or more seeds", "", IMAGES, ""]
    heads = ["", "images: twice as many", "a fourth seed", "a fifth of train held out", "accuracy of the twin then"]
    text += table(heads, [_images(rows, o) for o in (0, 1)])
    TABLE.write_text("\n".join(text), encoding="utf-8")


def _course(row: Row, outcome: int) -> str:
    return " ".join(f"{e[outcome]['value']:.0f}" if outcome == 0 else f"{e[outcome]['value']:.2f}" for e in row["effects"])


def _images(rows: Sequence[Row], outcome: int) -> list[str]:
    def mean(ratios: list[float]) -> str:
        """The geometric one, and of how many."""
        return f"x {math.exp(np.mean(np.log(ratios))):.2f} ({len(ratios)})" if ratios else ""

    last = [(r, r["effects"][-1][outcome]) for r in rows]
    twice = [e["verdict"] / r["half"][outcome]["verdict"] for r, e in last]
    more = [e["more"] / e["verdict"] for _, e in last]
    held = [r["held"]["effects"][outcome]["verdict"] / e["verdict"] for r, e in last if "held" in r]
    lost = [100 * (r["held"]["twin"] - r["twin"]) for r, _ in last if "held" in r]
    return [("points", "nats")[outcome], mean(twice), mean(more), mean(held), f"{np.mean(lost):+.1f} points" if lost else ""]


def main() -> None:
    """Run what is missing until the time is up; then write what is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--limit", type=int, default=24)
    parser.add_argument("--held", action="store_true", help="also with a fifth of the training images in validation")
    parser.add_argument("--keep", type=Path, default=Path(".bench-campaign"))
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    keep, end = given.keep.resolve(), time.monotonic() + 60 * given.minutes
    prepare(given.data.resolve(), keep / "data")
    sound = {p.name: p for p in programs()}
    rows = {r["name"]: r for r in read_rows(ROWS)}
    for program in chosen(costs())[: given.limit]:
        pair = program, sound[digest(program.base.name)]
        if any(not (keep / "courses" / f"{p.name}.npy").exists() for p in pair) and time.monotonic() > end:
            continue
        own, twin = (answers(p, keep) for p in pair)
        if own is None or twin is None or own.shape != twin.shape:
            print(program.name, "validates otherwise", flush=True)
            continue
        rows[program.name] = {k: v for k, v in rows.get(program.name, {}).items() if k == "held"} | row_of(program, own, twin)
        if given.held and program.draft.files is None and "held" not in rows[program.name] and time.monotonic() < end:
            own, twin = (answers(p, with_held_out(keep)) for p in pair)
            if own is not None and twin is not None and own.shape == twin.shape:
                last = [told(own[:, -1, o], twin[:, -1, o], o) for o in (0, 1)]
                rows[program.name]["held"] = {"images": own.shape[3], "effects": last, "twin": accuracy(twin)}
        print(program.name, rows[program.name]["kinds"], [e[0]["value"] for e in rows[program.name]["effects"]], flush=True)
    ROWS.write_text("".join(json.dumps(rows[name]) + "\n" for name in sorted(rows)))
    write_table([rows[name] for name in sorted(rows)])


if __name__ == "__main__":
    main()
