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
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from campaign.data import prepare
from campaign.harness import bare
from campaign.plan import Program, digest, programs
from proof_power import LEAST_NATS, LEAST_POINTS, costs, read_rows

from valgap.experiments.sequential import spread

HERE = Path(__file__).resolve().parent
ROWS = HERE / "results" / "effect_course.jsonl"
SEEDS = 3
LEAST_EPOCHS, FIRST = 4, 2  # as long as arms are at least: valgap.experiments.plan.MIN_EPOCHS
# What needs no training is shown by recorded weights, however long the program is.
UNTRAINED = {"read_val", "measure", "choose"}
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


def row_of(program: Program, own: Answers, twin: Answers) -> dict[str, Any]:
    """The effect of mending it after each epoch: value, 95 % interval and what the images have in its variance; points and nats.

    ``half``: as many seeds on every second image, to see what as many images again would give.
    """
    kinds = ["+".join(k.name for k in program.kinds if not k.sound), "/".join(program.stages)]
    by_epoch = [[_told(own[:, e, o], twin[:, e, o], o) for o in (0, 1)] for e in range(own.shape[1])]
    half = [_told(own[:, -1, o, ::2], twin[:, -1, o, ::2], o) for o in (0, 1)]
    return {
        "name": program.name,
        "kinds": kinds[0],
        "stages": kinds[1],
        "images": own.shape[3],
        "effects": by_epoch,
        "half": half,
    }


def _told(own: npt.NDArray[np.float64], twin: npt.NDArray[np.float64], outcome: int) -> list[float]:
    found = spread(100 * own, 100 * twin, 100.0) if outcome == 0 else spread(-own, -twin, 20.0)
    by_images = found.images, min((v for v, _ in found.seeds), default=0.0)
    return [round(v, 4) for v in (found.value, found.half_width(0.05), found.half_width(0.005), *by_images)]


def main() -> None:
    """Run what is missing until the time is up."""
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
    done = {r["name"] for r in read_rows(ROWS)}
    for program in chosen(costs())[: given.limit]:
        if program.name in done or time.monotonic() > end:
            continue
        own, twin = answers(program, keep), answers(sound[digest(program.base.name)], keep)
        if own is None or twin is None or own.shape != twin.shape:
            print(program.name, "validates otherwise", flush=True)
            continue
        row = row_of(program, own, twin)
        with ROWS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(program.name, row["kinds"], [e[0][0] for e in row["effects"]], flush=True)


if __name__ == "__main__":
    main()
