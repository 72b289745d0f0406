"""`--backbone auto` against training every backbone in full: what it loses, and what it costs.

python benchmarks/backbones.py FOLDER_WITH_THE_DATA_SETS [--seeds 3] [--sets NAME ...] [--minutes 9] [--table]

Every backbone whose weights are on this machine is trained in full by `valgap train`, each with a cache of its own. The choice
is made with an empty cache and timed, and what it chose (backbone, side and crop) is trained as well. Rows go to
results/backbones.jsonl as they come, and what is there is not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from valgap.models.here import backbones_here

ROWS = Path(__file__).resolve().parent / "results" / "backbones.jsonl"
TABLE = ROWS.with_suffix(".md")
SETS = ("hymenoptera_256", "clothing_mini", "sign_digits_mini")
CHOICE = """
import json, math, sys, time
from dataclasses import asdict
from pathlib import Path
from rich.console import Console
from valgap.data import load_folder
from valgap.recipe import RECIPE
from valgap.training.choice import choose
from valgap.training.settings import Settings
data, seed = Path(sys.argv[1]), int(sys.argv[2])
table, started = load_folder(data, seed), time.monotonic()
found = choose(Settings(data, "auto", "default", RECIPE, None, seed, None, None), table, math.inf, Console(quiet=True))
print(json.dumps({"backbone": found.backbone, "size": found.size, "crop": found.crop, "seconds": time.monotonic() - started}))
"""
TRAINING = """
import json, sys
from pathlib import Path
from valgap.training import train
import valgap.training.program as program
from valgap.training.settings import Settings
from valgap.recipe import RECIPE
data, out, backbone, size, crop, seed = sys.argv[1:7]
chosen = Settings(Path(data), backbone, "default", RECIPE, json.loads(size), int(seed), None, None, json.loads(crop))
program._begin = lambda out, asked, resume: chosen
result = train(Path(data), Path(out), seed=int(seed))
print(json.dumps({"accuracy": result.val.accuracy, "nll": result.val.nll, "seconds": result.seconds}))
"""
Row = dict[str, object]
INTRODUCTION = """# Choosing a backbone

`make bench-backbones DATA=FOLDER`: `--backbone auto` against every backbone on the machine, trained in full at its own size. Val
accuracy in per cent and loss in nats, mean over seeds; val chose nothing. Regret: the best backbone's mean less that of what was
chosen, where a larger side may have been chosen as well. Cost: seconds of choosing over those of training every one.
"""


def last_line(code: str, *arguments: str) -> Row:
    """What a program prints last, as JSON, with an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "VALGAP_CACHE": cache}
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stderr)
    found: Row = json.loads(done.stdout.splitlines()[-1])
    return found


def rows() -> list[Row]:
    """What is known so far."""
    return [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()] if ROWS.exists() else []


def table(known: list[Row]) -> str:
    """The rows as Markdown."""
    by: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in known:
        by[str(row["set"]), str(row["what"])].append(row)

    def mean(name: str, what: str, key: str) -> float:
        values = [float(r[key]) for r in by[name, what]]  # type: ignore[arg-type]
        return sum(values) / len(values) if values else float("nan")

    names = sorted({str(r["what"]) for r in known} - {"auto", "choice"})
    lines = [INTRODUCTION, f"| set | seeds | {' | '.join(names)} | chosen | auto | regret, points | cost |"]
    lines.append("|---" * (len(names) + 6) + "|")
    for name in sorted({str(r["set"]) for r in known}):
        if not all(by[name, what] for what in ("choice", "auto", *names)):
            continue
        cells = [f"{100 * mean(name, n, 'accuracy'):.1f} / {mean(name, n, 'nll'):.3f}" for n in names]
        best = max(mean(name, n, "accuracy") for n in names)
        taken = {(str(r["backbone"]), r["size"]) for r in by[name, "choice"]}
        chosen = ", ".join(sorted(one + (f" at {size} px" if size else "") for one, size in taken))
        cost = mean(name, "choice", "seconds") / sum(mean(name, n, "seconds") for n in names)
        auto = f"{100 * mean(name, 'auto', 'accuracy'):.1f} / {mean(name, 'auto', 'nll'):.3f}"
        regret = 100 * (best - mean(name, "auto", "accuracy"))
        lines.append(
            f"| {name} | {len(by[name, 'auto'])} | {' | '.join(cells)} | {chosen} | {auto} | {regret:+.1f} | {cost:.0%} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """What is not there yet, and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    deadline = time.monotonic() + 60 * args.minutes
    for seed in range(args.seeds):
        for name in args.sets:
            for what in ("choice", "auto", *backbones_here()):
                known = {(r["set"], r["seed"], r["what"]): r for r in rows()}
                if args.table or (name, seed, what) in known or time.monotonic() > deadline:
                    continue
                data = str(args.data / name)
                if what == "choice":
                    row = last_line(CHOICE, data, str(seed))
                else:
                    taken = known.get((name, seed, "choice"), {}) if what == "auto" else {"backbone": what}
                    view = (json.dumps(taken.get("size")), json.dumps(taken.get("crop")))
                    with tempfile.TemporaryDirectory() as out:
                        row = last_line(TRAINING, data, f"{out}/run", str(taken["backbone"]), *view, str(seed))
                with ROWS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"set": name, "seed": seed, "what": what} | row) + "\n")
                print(name, seed, what, row, flush=True)
    TABLE.write_text(table(rows()), encoding="utf-8")


if __name__ == "__main__":
    main()
