"""Part `undisturbed`: each program runs twice bare and once under `valgap run`; what bare runs agree in, the third must share.

The clock of the second bare run goes faster, so that printed seconds differ between the two. Where something differs, the program
runs bare once more before that is believed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from undisturbed.differs import Compared, compared
from undisturbed.programs import Program, programs
from undisturbed.ran import Ran, prepare, ran

ROWS = Path(__file__).resolve().parent.parent / "results" / "trust_undisturbed.jsonl"
FAST = 37.0
Row = dict[str, Any]
HEAD = """Programs of the other benches, cut to small sets of images, each in a working folder, a home and a temporary folder of
its own: twice bare, once under `valgap run`. Compared are the weights and buffers of every module as it dies or as the process
ends, the random states of Python, numpy and torch at the very end, both streams line by line (valgap's own words aside), names
and content of all files in the three folders, and the exit status. Left out is only what two bare runs differ in (the clock of
the second one goes 37 times as fast, so that printed seconds do). Most are forks of one process that has imported torch; every
eighth, those with torch.compile and the ranks start as anybody would start them (`fresh`).
`python benchmarks/trust.py undisturbed --data FOLDER --again "NAME"` runs one again. No GPU, no `torchrun`: ranks are started by
hand. Programs of `make bench-real` (other people's scripts) were not at hand.
"""


def work(given: argparse.Namespace, until: float) -> bool:
    """Run what has no row yet, until time is up; whether nothing is left."""
    keep = given.keep.resolve()
    every = [p for p in programs(given.data.resolve(), given.cases, keep) if not given.kind or p.kind in given.kind]
    done = {(r["kind"], r["name"]) for r in rows()}
    prepare()
    for program in every[: given.most]:
        if (program.kind, program.name) in done:
            continue
        if time.monotonic() > until:
            return False
        runs, found = judged(program, keep)
        row = row_of(program, runs, found)
        with ROWS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(program.kind, program.name, row["status"], row["seconds"], "; ".join(found.differs) or "the same", flush=True)
    return True


def judged(program: Program, keep: Path) -> tuple[list[Ran], Compared]:
    """(the runs, the recorded one last; what it did otherwise)."""
    bare = [ran(program, keep, recorded=False), ran(program, keep, recorded=False, clock=FAST)]
    recorded = ran(program, keep, recorded=True)
    found = compared(bare, recorded)
    if found.differs:
        bare.append(ran(program, keep, recorded=False))
        found = compared(bare, recorded)
    return [*bare, recorded], found


def again(name: str, given: argparse.Namespace) -> None:
    """One program once more: what each run printed last, and all differences."""
    keep = given.keep.resolve()
    prepare()
    chosen = [p for p in programs(given.data.resolve(), given.cases, keep) if f"{p.kind} {p.name}" == name]
    for program in chosen:
        runs, found = judged(program, keep)
        for one in runs:
            print(one.statuses, one.seconds, one.random, *one.out, *one.err, sep="\n")
        print(*found.differs, sep="\n")
        print("not compared:", *found.varies)


def row_of(program: Program, runs: Sequence[Ran], found: Compared) -> Row:
    """What is kept of one program."""
    first = runs[0]
    return {
        "kind": program.kind, "name": program.name, "fresh": program.fresh,
        "status": list(first.statuses), "seconds": [r.seconds for r in runs],
        "modules": [m.total() for m in first.modules], "lines": [t.count("\n") for t in first.out], "files": len(first.files),
        "varies": list(found.varies), "differs": list(found.differs), "nothing_recorded": found.nothing_recorded,
    }  # fmt: skip


def rows() -> list[Row]:
    """What was run so far; of two rows of one program the later counts."""
    lines = ROWS.read_text(encoding="utf-8").splitlines() if ROWS.exists() else []
    return list({(row["kind"], row["name"]): row for row in map(json.loads, lines)}.values())


def section() -> list[str]:
    """Of the table."""
    found = rows()
    lines = ["## Undisturbed", "", HEAD]
    if not found:
        return [*lines, "Not run yet."]
    lines += [
        "| programs | run | fresh | ended with 0 | modules | lines | files | differ | differed at first, mended |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    earlier = {(r["kind"], r["name"]) for r in _every() if r["differs"]} - {(r["kind"], r["name"]) for r in found if r["differs"]}
    for kind in [*dict.fromkeys(r["kind"] for r in found), None]:
        own = [r for r in found if kind in (None, r["kind"])]
        mended = sum(kind in (None, k) for k, _ in earlier)
        sums = [sum(sum(r[name]) for r in own) for name in ("modules", "lines")]
        cells = [
            len(own),
            sum(r["fresh"] for r in own),
            sum(not any(r["status"]) for r in own),
            *sums,
            sum(r["files"] for r in own),
        ]
        cells += [sum(bool(r["differs"]) for r in own), mended]
        lines.append(f"| {kind or '**all**'} | " + " | ".join(f"{c:,}" for c in cells) + " |")
    still = [f"- {r['kind']} {r['name']}: {'; '.join(r['differs'])}" for r in found if r["differs"]]
    nothing = sum(r["nothing_recorded"] for r in found)
    told = f"\nOf them, {nothing} ended with 2 where nothing could be recorded (docs/same_as_python.md)." if nothing else ""
    return [*lines, told, *still]


def _every() -> list[Row]:
    return [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]
