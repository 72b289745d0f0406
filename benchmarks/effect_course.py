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
import os
import shutil
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from campaign.data import prepare
from campaign.harness import bare
from campaign.plan import Program, digest, programs
from proof_power import LEAST_NATS, LEAST_POINTS, costs, read_rows

from valgap.experiments.sequential import spread
from valgap.experiments.verdicts import LEVEL, OUTCOMES

HERE = Path(__file__).resolve().parent
ROWS = HERE / "results" / "effect_course.jsonl"
SEEDS = 3
LEAST_EPOCHS, FIRST = 4, 2  # as long as arms are at least: valgap.experiments.plan.MIN_EPOCHS
# What needs no training is shown by recorded weights, however long the program is.
UNTRAINED = {"read_val", "measure", "choose"}
# Of a verdict of one cause by either outcome (valgap.experiments.verdicts).
VERDICT = LEVEL / OUTCOMES
Row = dict[str, Any]
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
    return {"name": program.name, "kinds": kinds, "stages": stages, "images": own.shape[3], "effects": by_epoch, "half": half}


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


def main() -> None:
    """Run what is missing until the time is up; then write what is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--limit", type=int, default=24)
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
        rows[program.name] = row_of(program, own, twin)
        print(program.name, rows[program.name]["kinds"], [e[0]["value"] for e in rows[program.name]["effects"]], flush=True)
    ROWS.write_text("".join(json.dumps(rows[name]) + "\n" for name in sorted(rows)))


if __name__ == "__main__":
    main()
