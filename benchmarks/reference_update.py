"""Whether the reference of the updates is a sound one: put into sound programs, it should cost nothing. Writes
results/reference_update.md.

python benchmarks/reference_update.py FOLDER_WITH_THE_DATA_SETS [--only p14,q06] [--label adamw] [--minutes 9] [--table]

The programs are the healthy ones and the sound twins of benchmarks/strangers (docs/strangers.md), which nobody tuned to this
reference. Each is recorded once; then it runs again as it is and with the reference in place of its own updates, seed 0. Both
runs begin at the same weights and see the same batches. A row a program goes to results/reference_update.jsonl at once.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from campaign.harness import timed
from scipy.stats import t as student
from strangers import Stranger, strangers

from valgap.experiments.arm import SPEC_FILE
from valgap.experiments.suspects import NotRepeatableError, base_spec
from valgap.record.reader import read_record
from valgap.reference import updating
from valgap.types import Intervention

RESULTS = Path(__file__).resolve().parent / "results"
ROWS, TABLE = RESULTS / "reference_update.jsonl", RESULTS / "reference_update.md"
Row = dict[str, Any]
HEAD = """# The reference of the updates, in sound programs

Made by `make bench-reference-update DATA=FOLDER`: healthy programs and sound twins of [strangers](../../docs/strangers.md), once
more as they are and with the reference in place of their own updates, from the same weights on the same batches (seed 0). What it
costs them is what every account would be off by. The first version of AdamW took
gradients of a goal that is maximized for those of a loss (q06), and counted the steps of the first of two optimizers alone (q21).

"""


def main() -> None:
    """Ask what has no row yet, until time is up; write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--label", default="adamw")
    parser.add_argument("--only", default="")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--table", action="store_true", help="only write the table")
    args = parser.parse_args()
    until = time.monotonic() + 60 * args.minutes
    wanted = set(filter(None, args.only.split(",")))
    os.environ["SEED"] = "0"
    known = {(r["label"], r["name"]) for r in read_rows()}
    for one in [] if args.table else strangers():
        if (args.label, one.name) in known or (wanted and one.name not in wanted) or time.monotonic() > until:
            continue
        row = {"label": args.label, "name": one.name} | tried(one, args.data.resolve())
        with ROWS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
    TABLE.write_text(HEAD + "\n".join(table(read_rows())) + "\n")


def read_rows() -> list[Row]:
    """All rows, oldest first."""
    return [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []


def tried(one: Stranger, data: Path) -> Row:
    """What the sound program reaches by itself and with the reference, or why that cannot be tried."""
    where = Path(tempfile.mkdtemp())
    try:
        (where / "prog.py").write_text(one.text(True, data), encoding="utf-8")
        timed(["-m", "valgap", "run", "--out", "record", "prog.py"], where)
        run = read_record(where / "record")
        step = updating.treatment(run)
        if not isinstance(step, Intervention):
            return {"untried": step.reason}
        base = base_spec(run)
        row: Row = {"steps": step.settings["steps"]}
        for name, changes in (("own", []), ("reference", [step])):
            folder = where / name
            folder.mkdir()
            (folder / SPEC_FILE).write_text(json.dumps(replace(base, interventions=changes).to_json()))
            timed(["-m", "valgap.experiments.arm", str(folder)], where)
            last = read_record(folder / "record").last_validation
            if last is None or not last.samples.answered:
                return row | {"untried": f"{name}: no answers to validation"}
            row |= {name: round(100 * last.samples.accuracy, 2), f"{name}_nats": round(last.samples.mean_loss, 4)}
        return row
    except (NotRepeatableError, OSError, ValueError) as why:
        return {"untried": str(why)[:200]}
    finally:
        shutil.rmtree(where)


def table(rows: list[Row]) -> list[str]:
    """The means by label, then a line a program."""
    lines = ["| reference | programs | points, mean (95 %) | median | at worst | nats, median |", "|---|---|---|---|---|---|"]
    for label in dict.fromkeys(r["label"] for r in rows):
        own = [r for r in rows if r["label"] == label and "reference" in r]
        gains = np.array([r["reference"] - r["own"] for r in own])
        if len(gains) < 2:
            continue
        low, high = student.interval(0.95, len(gains) - 1, gains.mean(), gains.std(ddof=1) / np.sqrt(len(gains)))
        nats = np.median([r["reference_nats"] - r["own_nats"] for r in own])
        lines.append(
            f"| {label} | {len(own)} | {gains.mean():+.1f} ({low:+.1f} .. {high:+.1f}) | {np.median(gains):+.1f} | "
            f"{gains.min():+.1f} | {nats:+.2f} |"
        )
    lines += ["", "| program | steps | own | reference | nats, own | nats, reference | by |", "|---|---|---|---|---|---|---|"]
    for r in sorted(rows, key=lambda r: (r["name"], r["label"])):
        cells = [r["name"], r.get("steps", ""), r.get("own", r.get("untried", ""))]
        cells += [r.get("reference", ""), r.get("own_nats", ""), r.get("reference_nats", ""), r["label"]]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


if __name__ == "__main__":
    main()
