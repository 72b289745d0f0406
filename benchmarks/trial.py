"""How long the last two stages must be tried before `valgap train` decides whether they learn.

python benchmarks/trial.py DATA [--seeds 3] [--steps 25 50 100] [--images 250 1000] [--size 96] [--sets NAME ...]

Each set is trained with its last two stages once per seed; before that, trials of several lengths are made on held-out training
images. Rows go to benchmarks/results/trial.jsonl as they come; the table is made of all rows, and those that are there are not
run again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from accuracy import SETS, images_of

import valgap
from valgap.training import program
from valgap.training.decide import HELD_OUT_SHARE, Trial, try_stages

ROWS = Path(__file__).resolve().parent / "results" / "trial.jsonl"


def main() -> None:
    """Run what is asked for, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, nargs="+", default=(25, 50, 100))
    parser.add_argument("--images", type=int, nargs="+", default=(250, 1000), help="at most so many training images of a set")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--sets", nargs="*", default=SETS)
    args = parser.parse_args()
    done = {(r["set"], r["images"], r["seed"]) for r in rows_so_far()}
    with tempfile.TemporaryDirectory() as scratch:
        for name in args.sets:
            for most in args.images:
                data, _ = images_of(args.data.resolve(), name, Path(scratch), most)
                images = sum(1 for p in (data / "train").rglob("*") if p.is_file())
                for seed in range(args.seeds):
                    if (name, images, seed) in done:
                        continue
                    done.add((name, images, seed))
                    out = Path(scratch) / f"{name}-{time.time_ns()}"
                    row = {"set": name, "images": images, "size": args.size, "seed": seed}
                    row |= tried_and_trained(data, out, args.size, seed, args.steps)
                    with ROWS.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
                    print(row, flush=True)
    ROWS.with_suffix(".md").write_text(table(rows_so_far()), encoding="utf-8")


def rows_so_far() -> list[dict[str, Any]]:
    """The rows of the file, oldest first."""
    return [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()] if ROWS.exists() else []


def tried_and_trained(data: Path, out: Path, size: int, seed: int, lengths: list[int]) -> dict[str, Any]:
    """What trials of several lengths say, and what training the last two stages then came to."""
    trials: dict[int, Trial] = {}

    def try_all(of: Any, features: np.ndarray[Any, Any], reasons: list[str]) -> tuple[str, None]:
        held_out = round(HELD_OUT_SHARE * len(of.train_labels))
        for steps in lengths:
            tried = try_stages(of, features, held_out, steps)
            assert tried is not None
            trials[steps] = tried
        return "last2", None

    with mock.patch.object(program, "what_learns", try_all):
        result = valgap.train(data, out, backbone="efficientnet_lite0", size=size, seed=seed)
    first, last = result.epochs[0], result.epochs[-1]
    return {
        "trials": {steps: asdict(trial) for steps, trial in trials.items()},
        "probe": first.val_accuracy, "probe_nll": first.val_loss, "last": last.val_accuracy, "last_nll": last.val_loss,
        "chosen": result.val.accuracy, "chosen_nll": result.val.nll,
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """What deciding by trials of each length gains on val, on average, against the probe alone and training always."""
    lines = [
        "# How long the last two stages are tried",
        "",
        "`make bench-trial DATA=FOLDER`: EfficientNet-Lite0 at 96 px. On each set the last two stages were tried on held-out",
        "training images and then trained whatever that said. A rule keeps the probe where its trial does not pass; the columns",
        "are means over sets and seeds, against the probe. `kept` is what val chose among the epochs, a little optimistic;",
        "`last epoch` was not chosen by val. Sets: " + ", ".join(sorted({f"{r['set']} ({r['images']})" for r in rows})) + ".",
        "",
        "| rule | trained | points, kept | points, last epoch | loss, kept | loss, last epoch |",
        "|---|---|---|---|---|---|",
    ]
    lengths = sorted({int(steps) for row in rows for steps in row["trials"]})
    rules = [(f"{n} steps, {how}", [taken(r, n) for r in rows]) for n in lengths for how, taken in RULES.items()]
    rules = [("never", [False] * len(rows)), *rules, ("always", [True] * len(rows))]
    for name, taken in rules:
        gains = [
            np.mean([taking * (row[key] - row[base]) for row, taking in zip(rows, taken, strict=True)])
            for key, base in (("chosen", "probe"), ("last", "probe"), ("chosen_nll", "probe_nll"), ("last_nll", "probe_nll"))
        ]
        parts = [f"{100 * gains[0]:+.2f}", f"{100 * gains[1]:+.2f}", f"{gains[2]:+.3f}", f"{gains[3]:+.3f}"]
        lines.append(f"| {name} | {sum(taken)} of {len(rows)} | " + " | ".join(parts) + " |")
    return "\n".join(lines) + "\n"


def trial(row: dict[str, Any], steps: int) -> Trial:
    """The trial of that length."""
    return Trial(**row["trials"][str(steps)])


RULES: dict[str, Callable[[dict[str, Any], int], bool]] = {
    "at most 5 points less accurate": lambda row, steps: trial(row, steps).harmless,
    "as accurate as the probe": lambda row, steps: trial(row, steps).gain >= 0,
    "more accurate": lambda row, steps: trial(row, steps).gain > 0,
    "lower loss": lambda row, steps: trial(row, steps).loss_fall > 0,
}


if __name__ == "__main__":
    main()
