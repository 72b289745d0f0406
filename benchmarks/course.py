"""Whether held-out train says rightly how far to go from the probe's weights to the fine-tuned ones.

python benchmarks/course.py DATA [--seeds 2] [--images 500] [--size 96] [--sets NAME ...] [--minutes M]

The last two stages are trained whatever a trial with held-out images says of them; val then measures the weights at every
share of the way. Rows go to benchmarks/results/course.jsonl as they come; the table is made of all rows, and those that are
there are not run again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from accuracy import SETS, images_of

import valgap
from valgap.training import decide, program
from valgap.training.fit import Course, Fit, Logits
from valgap.training.held_out import SHARES, Trial
from valgap.training.stages import usual_epochs

ROWS = Path(__file__).resolve().parent / "results" / "course.jsonl"
Measured = tuple[float, float]  # accuracy 0..1, loss in nats


def main() -> None:
    """Run what is asked for, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--images", type=int, default=500, help="at most so many training images of a set")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--minutes", type=float, default=1e9)
    args = parser.parse_args()
    done = {(r["set"], r["images"], r["size"], r["seed"]) for r in rows_so_far()}
    deadline = time.monotonic() + 60 * args.minutes
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(args.seeds):
            for name in args.sets:
                what = {"set": name, "images": args.images, "size": args.size, "seed": seed}
                if tuple(what.values()) in done or time.monotonic() > deadline:
                    continue
                data, _ = images_of(args.data.resolve(), name, Path(scratch), args.images)
                row = what | trained(data, Path(scratch) / f"{name}-{time.time_ns()}", args.size, seed)
                with ROWS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                print(row, flush=True)
    ROWS.with_suffix(".md").write_text(table(rows_so_far()), encoding="utf-8")


def rows_so_far() -> list[dict[str, Any]]:
    """The rows of the file, oldest first."""
    return [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()] if ROWS.exists() else []


def trained(data: Path, out: Path, size: int, seed: int) -> dict[str, Any]:
    """What the trial says, and what val measures on the way that a training of the last two stages went."""
    trials: list[Trial] = []
    way: dict[float, Measured] = {}
    taken: list[Measured] = []
    try_course = decide.try_course

    def to_the_end(of: Any, *given: Any) -> tuple[Trial, float | None]:
        tried = try_course(of, *given)
        assert tried is not None
        trials.append(tried[0])
        end = Course(usual_epochs(of.recipe, given[0], len(of.train_labels)), 1.0)
        return replace(tried[0], course=end, best=end), tried[1]

    class Noting(Fit):
        def choose(self) -> tuple[str, Logits]:
            found = super().choose()
            end = {k: v.detach().clone() for k, v in self.module.state_dict().items()}
            for share in SHARES:
                self.module.load_state_dict(end)
                self.mix(share)
                logits = self.validate()
                way[share] = self.measured(logits)
                if share == trials[-1].best.share:
                    taken.append(self.measured(logits / trials[-1].temperature))
            self.module.load_state_dict(end)
            return found

    with mock.patch.object(decide, "try_course", to_the_end), mock.patch.object(program, "Fit", Noting):
        result = valgap.train(data, out, backbone="efficientnet_lite0", size=size, seed=seed)
    assert result.probe is not None
    first = result.epochs[0]
    probe = (result.probe.accuracy, result.probe.nll)
    kept = trials[-1].course.share > 0
    return {
        "trials": [asdict(t) for t in trials], "probe": (first.val_accuracy, first.val_loss), "probe_at_temperature": probe,
        "way": way, "said": taken[0] if kept and taken else probe,
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """What each rule gains on val against the probe, on average and at worst."""
    lines = [
        "# How far to go from the probe to the fine-tuned weights",
        "",
        "`make bench-course DATA=FOLDER`: EfficientNet-Lite0. On each set the last two stages were trained on all of train,",
        "whatever a trial with held-out images had said; val, which chose nothing, measured the weights on the way. All is told",
        "against the probe as it is, without a temperature, on the same seed.",
        "",
        "| rule | points, mean | points, worst | loss, mean | loss, worst | trained |",
        "|---|---|---|---|---|---|",
    ]
    rules: dict[str, Callable[[dict[str, Any]], Measured]] = {
        "the probe at its temperature": lambda row: row["probe_at_temperature"],
        **{f"{share:.2f} of the way, always": (lambda row, share=share: row["way"][str(share)]) for share in SHARES},
        "what held-out train says": lambda row: row["said"],
    }
    for name, rule in rules.items():
        gains = np.array([np.subtract(rule(row), row["probe"]) for row in rows])
        numbers = (100 * gains[:, 0].mean(), 100 * gains[:, 0].min(), gains[:, 1].mean(), gains[:, 1].max())
        trained = sum(row["trials"][-1]["course"]["share"] > 0 for row in rows) if "held-out" in name else ""
        shown = "{:+.2f} | {:+.1f} | {:+.3f} | {:+.3f}".format(*numbers)
        lines.append(f"| {name} | {shown} | {trained} |")
    lines += ["", "| set (train images at most, px) | seed | probe | said | to the end | share that was said |"]
    lines += ["|---|---|---|---|---|---|"]
    for row in rows:
        cells = [f"{100 * a:.1f} % / {loss:.3f}" for a, loss in (row["probe"], row["said"], row["way"]["1.0"])]
        share = row["trials"][-1]["course"]["share"]
        lines.append(f"| {row['set']} ({row['images']}, {row['size']}) | {row['seed']} | {' | '.join(cells)} | {share:.2f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
