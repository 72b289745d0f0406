"""How long the last stage should learn: val accuracy and loss for several numbers of steps.

python benchmarks/budget.py DATA [--steps 75 150 300] [--seeds 2] [--size 96] [--images 1000] [--sets NAME ...]

Every budget has a cosine schedule of its own, as `valgap train` would plan it. Rows go to benchmarks/results/budget.jsonl
as they come, and the table is made of all rows.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from accuracy import images_of

import valgap
from valgap.recipe import RECIPE, Recipe

ROWS = Path(__file__).resolve().parent / "results" / "budget.jsonl"
SETS = ("clothing_mini", "cifar10n_clean", "cifar10n_noisy", "solar_cells")


def main() -> None:
    """Run what is asked for, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, nargs="+", default=(75, 150, 300))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--images", type=int, default=1000, help="at most so many training images of a set")
    parser.add_argument("--sets", nargs="*", default=SETS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for name in args.sets:
            data, _ = images_of(args.data.resolve(), name, Path(scratch), args.images)
            images = sum(1 for p in (data / "train").rglob("*") if p.is_file())
            for seed in range(args.seeds):
                for steps in args.steps:
                    epochs = max(1, round(steps / (images / RECIPE.batch_size)))
                    recipe = Recipe.changed(RECIPE, {"unfreeze": "last", "epochs": epochs})
                    out = Path(scratch) / f"{name}-{seed}-{steps}-{time.time_ns()}"
                    result = valgap.train(data, out, backbone="efficientnet_lite0", recipe=recipe, size=args.size, seed=seed)
                    row = {
                        "set": name, "images": images, "size": args.size, "seed": seed, "steps": steps, "epochs": epochs,
                        "accuracy": result.val.accuracy, "nll": result.val.nll, "kept": result.chosen,
                        "probe": result.epochs[0].val_accuracy, "probe_nll": result.epochs[0].val_loss,
                    }  # fmt: skip
                    with ROWS.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
                    print(row, flush=True)
    ROWS.with_suffix(".md").write_text(
        table([json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]), encoding="utf-8"
    )


def table(rows: list[dict[str, float]]) -> str:
    """Mean over seeds of each set and budget."""
    cells = defaultdict(list)
    for row in rows:
        cells[row["set"], row["images"], row["size"], row["steps"]].append(row)
    lines = [
        "# How long the last stage learns",
        "",
        "`make bench-budget DATA=FOLDER`: EfficientNet-Lite0, `--unfreeze last`, each budget with a cosine schedule of its own;",
        "mean over seeds. `probe` is the state before the first step.",
        "",
        "| set | train images | px | steps | epochs | seeds | val accuracy | val loss | probe's accuracy | probe's loss |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (name, images, size, steps), found in sorted(cells.items()):
        mean = {k: float(np.mean([r[k] for r in found])) for k in ("epochs", "accuracy", "nll", "probe", "probe_nll")}
        lines.append(
            f"| {name} | {images} | {size} | {steps} | {mean['epochs']:.0f} | {len(found)} | {mean['accuracy']:.1%} | "
            f"{mean['nll']:.3f} | {mean['probe']:.1%} | {mean['probe_nll']:.3f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
