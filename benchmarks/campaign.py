"""Generated training programs with a fault at a known stage: run bare, recorded and diagnosed; writes results/campaign.md.

python benchmarks/campaign.py FOLDER_WITH_THE_DATA_SETS [--half calibration] [--limit 40] [--minutes 9] [--label after]

See docs/campaign.md. A row a program goes to results/campaign.jsonl at once: what is there is not done again, so that one
calls this until nothing is left. --label says which valgap was asked (the one that Python imports); `--label bare` asks none.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from campaign.data import prepare
from campaign.draft import Draft
from campaign.harness import SECOND_SEED_S, asked, bare
from campaign.kind import APART, HALVES
from campaign.plan import Program, digest, programs
from campaign.report import write_table

HERE = Path(__file__).resolve().parent
ROWS = HERE / "results" / "campaign.jsonl"
TABLE = HERE / "results" / "campaign.md"
Key = tuple[str, str, int]


def read_rows() -> dict[Key, dict[str, Any]]:
    """All rows so far, by label, name and seed; of two with one key the later counts."""
    if not ROWS.exists():
        return {}
    return {(r["label"], r["name"], r.get("seed", 0)): r for r in map(json.loads, ROWS.read_text().splitlines())}


def add(row: dict[str, Any]) -> None:
    """The row, at the end of the file."""
    ROWS.parent.mkdir(exist_ok=True)
    with ROWS.open("a") as file:
        file.write(json.dumps(row) + "\n")


def twin_of(program: Program) -> Program:
    """The same program without what was changed in it."""
    name = program.base.name
    return Program(digest(name), program.half, (), program.base, Draft(program.base, random.Random(name)), {})


def missing(program: Program, label: str, seeds: int, rows: dict[Key, dict[str, Any]]) -> Iterator[tuple[str, Program, int]]:
    """The runs that a program still lacks: the truth of it and its twin, with a second seed where that is cheap; the answer."""
    pair = (twin_of(program), program) if program.kinds else (program,)
    for each in pair:
        if ("bare", each.name, 0) not in rows:
            yield "bare", each, 0
    first = [rows.get(("bare", each.name, 0)) for each in pair]
    if seeds > 1 and program.kinds and all(r and r["status"] == 0 and r["seconds"] <= SECOND_SEED_S for r in first):
        for each in pair:
            if ("bare", each.name, 1) not in rows:
                yield "bare", each, 1
    if label != "bare" and (label, program.name, 0) not in rows:
        yield label, program, 0


def main() -> None:
    """Do what is missing until the time is up, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--half", choices=(*HALVES, "both", APART), default="both")
    parser.add_argument("--limit", type=int, default=10_000, help="only the first so many programs of the half")
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--label", default="after")
    parser.add_argument("--seeds", type=int, choices=(1, 2), default=2, help="seeds that a true cost is measured over")
    parser.add_argument("--only", default="", help="names of programs, kinds or stages, separated by commas")
    parser.add_argument("--budget", default="", help="of re-runs, such as 1x or 60s; none: the record alone. Give it a --label")
    parser.add_argument("--again", action="store_true", help="run what valgap says of them once more")
    parser.add_argument("--keep", type=Path, default=Path(".bench-campaign"))
    parser.add_argument("--table", action="store_true", help="only write the table")
    given = parser.parse_args()
    every = programs()
    only = set(filter(None, given.only.split(",")))
    chosen = [p for p in every if p.half in (HALVES if given.half == "both" else (given.half,))]
    chosen = [p for p in chosen if not only or only & {p.name, *p.stages, *(k.name for k in p.kinds)}][: given.limit]
    keep = given.keep.resolve()
    if not given.table:
        work(chosen, given, keep)
    write_table(every, read_rows(), TABLE)


def work(chosen: list[Program], given: argparse.Namespace, keep: Path) -> None:
    """The runs that are missing, one after another."""
    prepare(given.data.resolve(), keep / "data")
    os.environ["OMP_NUM_THREADS"] = "1"
    importlib.import_module("threads")
    for name in importlib.import_module("threads").IMPORTED_ONCE:
        importlib.import_module(name)
    end = time.monotonic() + 60 * given.minutes
    for program in chosen:
        rows = read_rows()
        if given.again:
            rows.pop((given.label, program.name, 0), None)
        while (job := next(missing(program, given.label, given.seeds, rows), None)) is not None:
            if time.monotonic() > end:
                print("time is up", flush=True)
                return
            label, each, seed = job
            row = bare(each, seed, keep) if label == "bare" else asked(each, label, keep, given.budget)
            add(row)
            rows[label, each.name, seed] = row
            print(label, each.name, seed, each.base.name, *(k.name for k in each.kinds), told(row), flush=True)


def told(row: dict[str, Any]) -> str:
    """The row in a few words."""
    if row["label"] == "bare":
        return f"{row.get('accuracy')} printed {row['printed']} nll {row.get('nll')} ({row['seconds']} s) {row.get('error', '')}"
    return f"{row['top']} {row['seconds']}"


if __name__ == "__main__":
    main()
