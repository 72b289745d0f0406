"""How many layers should learn, for how long and how fast: val accuracy and loss.

python benchmarks/budget.py DATA [--unfreeze last last2 all] [--rates 0.1 1] [--steps 50 100] [--seeds 0 1] [--sets NAME ...]
    [--size 96] [--images 1000] [--batch 16]
    [--backbone NAME --weights FILE]

Every budget has a cosine schedule of its own, as `valgap train` would plan it. Rows go to benchmarks/results/budget.jsonl
as they come, those that are there are not run again, and the table is made of all rows.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import SETS, images_of

import valgap
from valgap.recipe import RECIPE, Recipe

ROWS = Path(__file__).resolve().parent / "results" / "budget.jsonl"
KEY = ("backbone", "set", "images", "size", "seed", "unfreeze", "rate", "batch", "epochs")


def main() -> None:
    """Run what is asked for, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--unfreeze", nargs="+", default=("last", "last2"))
    parser.add_argument("--rates", type=float, nargs="+", default=(0.1, 1.0, 3.0), help="of the backbone, shares of the head's")
    parser.add_argument("--steps", type=int, nargs="+", default=(50, 100))
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1))
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--images", type=int, default=1000, help="at most so many training images of a set")
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--batch", type=int, default=RECIPE.batch_size)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--weights", default="default")
    args = parser.parse_args()
    done = {tuple(r[k] for k in KEY) for r in rows_so_far()}
    with tempfile.TemporaryDirectory() as scratch:
        for name in args.sets:
            data, _ = images_of(args.data.resolve(), name, Path(scratch), args.images)
            images = sum(1 for p in (data / "train").rglob("*") if p.is_file())
            for seed, unfreeze, rate, steps in itertools.product(args.seeds, args.unfreeze, args.rates, args.steps):
                epochs = max(2, round(steps / (images / args.batch)))
                row = dict(
                    zip(KEY, (args.backbone, name, images, args.size, seed, unfreeze, rate, args.batch, epochs), strict=True)
                )
                if tuple(row.values()) in done:
                    continue
                done.add(tuple(row.values()))
                out = Path(scratch) / f"{name}-{time.time_ns()}"
                row |= {"asked_steps": steps, **trained(data, out, row, args.weights)}
                with ROWS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                print(row, flush=True)
    ROWS.with_suffix(".md").write_text(table(rows_so_far()), encoding="utf-8")


def rows_so_far() -> list[dict[str, Any]]:
    """The rows of the file, oldest first."""
    return [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()] if ROWS.exists() else []


def trained(data: Path, out: Path, row: dict[str, Any], weights: str) -> dict[str, Any]:
    """What one training came to: what val chose among its epochs, its last epoch, and the probe it began with."""
    recipe = Recipe.changed(
        RECIPE,
        {k: row[k] for k in ("unfreeze", "epochs")} | {"select": "val", "backbone_rate": row["rate"], "batch_size": row["batch"]},
    )
    started = time.process_time()
    how: dict[str, Any] = {"recipe": recipe, "weights": weights, **{k: row[k] for k in ("backbone", "size", "seed")}}
    result = valgap.train(data, out, **how)
    first, last = result.epochs[0], result.epochs[-1]
    return {
        "accuracy": result.val.accuracy, "nll": result.uncalibrated.nll, "kept": result.chosen, "last": last.val_accuracy,
        "last_nll": last.val_loss, "probe": first.val_accuracy, "probe_nll": first.val_loss,
        "cpu_s": round(time.process_time() - started, 1),
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """Means over sets and seeds, against the probe with which each run began; then set by set."""
    lines = [
        "# How many layers learn, for how long, how fast",
        "",
        "`make bench-budget DATA=FOLDER`: from the probe's optimum, each budget with a cosine",
        "schedule of its own. `rate` is the backbone's, as a share of the head's .01. Points and loss are against the probe with",
        "which the same run began, means over sets, each the mean over its seeds. `kept` is what val chose among the epochs, a",
        "little optimistic; `last epoch` was not chosen by val.",
        "",
        "| network | px | learns | rate | steps x batch | sets | runs | points, kept | last epoch | loss, kept | last epoch |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    kinds: dict[tuple[Any, ...], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        kind = tuple(row[k] for k in ("backbone", "size", "unfreeze", "rate", "batch", "asked_steps"))
        kinds[kind][f"{row['set']} ({row['images']})"].append(row)
    columns = (("accuracy", "probe"), ("last", "probe"), ("nll", "probe_nll"), ("last_nll", "probe_nll"))
    for (backbone, px, unfreeze, rate, batch, steps), sets in sorted(kinds.items()):
        gains = [np.mean([np.mean([r[key] - r[base] for r in found]) for found in sets.values()]) for key, base in columns]
        runs = sum(len(found) for found in sets.values())
        parts = [f"{100 * gains[0]:+.2f}", f"{100 * gains[1]:+.2f}", f"{gains[2]:+.3f}", f"{gains[3]:+.3f}"]
        lines.append(
            f"| {backbone} | {px} | {unfreeze} | {rate:g} | {steps} x {batch} | {len(sets)} | {runs} | "
            + " | ".join(parts)
            + " |"
        )
    lines += [
        "",
        "| network | set (train images) | learns | rate | steps x batch | epochs | seeds | accuracy | loss | probe | its loss |",
    ]
    lines += ["|---|---|---|---|---|---|---|---|---|---|---|"]
    by_set = [(kind[0], name, *kind[2:], found) for kind, sets in kinds.items() for name, found in sets.items()]
    for backbone, name, unfreeze, rate, batch, steps, found in sorted(by_set, key=lambda s: s[:6]):
        mean = {k: float(np.mean([r[k] for r in found])) for k in ("epochs", "accuracy", "nll", "probe", "probe_nll")}
        parts = [backbone, name, unfreeze, f"{rate:g}", f"{steps} x {batch}", f"{mean['epochs']:.0f}", len(found)]
        parts += [f"{mean['accuracy']:.1%}", f"{mean['nll']:.3f}", f"{mean['probe']:.1%}", f"{mean['probe_nll']:.3f}"]
        lines.append("| " + " | ".join(map(str, parts)) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
