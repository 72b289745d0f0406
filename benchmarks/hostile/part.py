"""Part `hostile`: inputs that a stranger made, each put to the reader that a command uses.

Inputs come from a generator: the same kind and number give the same input. A trial is sound where the reader reads the input or
refuses it in one line (`valgap.errors`), within 10 s, executes nothing, changes no file, and lets no control character through.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from hostile.kinds import KINDS
from hostile.trial import CANARY, READ, REFUSED, Kind, Outcome, bounded, tried

ROWS = Path(__file__).resolve().parent.parent / "results" / "trust.jsonl"
BLOCK = 100  # trials of one row
TEMPORARY = re.compile(re.escape(tempfile.gettempdir()) + r"/tmp\w+")  # where a trial's files lie: another place each time
COUNTS = ("inputs", "trials", "read", "refused", "unsound")
STUCK_S = 120.0  # in code that no signal interrupts
HEAD = f"""Each input is made from its kind and number, so that
`python benchmarks/trust.py --again "KIND NUMBER"` puts it again and shows what came of it. *Sound*: read, or refused in one line
with exit status 2, within 10 s of processor time a reader; nothing executed, no file changed, no control character in what is
printed. The rows (`trust.jsonl`) hold every failure with its number, {BLOCK} trials a row. A trial that holds several inputs is a
folder of images.
*Before*: the same numbers asked of valgap as it was before this bench (`BEFORE=FOLDER`: its src).
"""


def work(given: argparse.Namespace, until: float) -> bool:
    """Try what has no row yet, until time is up; whether nothing is left."""
    with prepared() as scratch:
        chosen = [k for name in given.kind or [k.name for k in KINDS] for k in KINDS if k.name == name]
        counts = [replace(kind, count=min(kind.count, given.most)) for kind in chosen]
        return all(of_kind(kind, scratch, until, given.before) for kind in counts)


def again(name: str, _: argparse.Namespace) -> None:
    """One trial, with its traceback."""
    name, _, number = name.rpartition(" ")
    with prepared() as scratch:
        outcome = put(next(k for k in KINDS if k.name == name), int(number), scratch)
        print(f"{outcome.trace}{outcome.what}: {outcome.came} ({outcome.seconds:.2f} s)")


def section() -> list[str]:
    """Of the table."""
    return ["## Hostile inputs", "", HEAD, *table(rows(), rows(before=True))]


@contextlib.contextmanager
def prepared() -> Iterator[Path]:
    """A scratch folder, with the bait on the path and bounded memory."""
    bounded()
    os.environ.setdefault("COLUMNS", "100")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        os.environ |= {"VALGAP_CACHE": f"{scratch}/cache", "PATH": f"{bait(scratch)}:{os.environ['PATH']}"}
        yield scratch


def bait(scratch: Path) -> Path:
    """A folder of programs that image libraries may start: each leaves the canary in the working directory."""
    folder = scratch / "bin"
    folder.mkdir()
    for program in ("gs", "gswin32c", "inkscape", "rsvg-convert", "convert"):
        (folder / program).write_text(f"#!/bin/sh\ntouch {CANARY}\n")
        (folder / program).chmod(0o755)
    return folder


def rows(before: bool = False) -> list[dict[str, object]]:
    """What was tried so far; of two rows about the same trials the later one counts."""
    lines = ROWS.read_text(encoding="utf-8").splitlines() if ROWS.exists() else []
    found = {(row["kind"], row["first"]): row for row in map(json.loads, lines) if row["before"] == before}
    return list(found.values())


def of_kind(kind: Kind, scratch: Path, until: float, before: bool) -> bool:
    """Try the blocks of a kind that have no row; whether all have one now."""
    done = {row["first"] for row in rows(before) if row["kind"] == kind.name}
    block = BLOCK if kind.holds == 1 else 4
    for first in range(0, kind.count, block):
        if first in done:
            continue
        if time.monotonic() > until:
            return False
        outcomes = [put(kind, n, scratch) for n in range(first, min(kind.count, first + block))]
        add(kind, first, outcomes, before)
    return True


def put(kind: Kind, number: int, scratch: Path) -> Outcome:
    """One trial in a fresh folder, which is the working directory."""
    home = Path.cwd()
    folder = scratch / "trial"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    os.chdir(folder)
    faulthandler.dump_traceback_later(STUCK_S, exit=True)
    try:
        return tried(kind, number, folder)
    finally:
        faulthandler.cancel_dump_traceback_later()
        os.chdir(home)


def add(kind: Kind, first: int, outcomes: Sequence[Outcome], before: bool) -> None:
    """Append a row."""
    bad = [
        {"number": first + i, "what": o.what, "came": TEMPORARY.sub("FOLDER", o.came)}
        for i, o in enumerate(outcomes)
        if not o.sound
    ]
    row = {
        "part": "hostile", "before": before, "kind": kind.name, "first": first,
        "trials": len(outcomes), "inputs": len(outcomes) * kind.holds,
        "read": sum(o.came == READ for o in outcomes), "refused": sum(o.came == REFUSED for o in outcomes),
        "slowest_s": round(max(o.seconds for o in outcomes), 2), "failed": bad,
    }  # fmt: skip
    with ROWS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(f"{kind.name} {first}: {row['read']} read, {row['refused']} refused, {len(bad)} unsound", flush=True)
    for one in bad[:6]:
        print(f"    {one['number']} {one['what']}: {one['came'][:200]}", flush=True)


def table(found: Sequence[dict[str, object]], before: Sequence[dict[str, object]]) -> list[str]:
    """The rows summed up by kind; those of an older valgap beside them."""
    lines = [
        "| input | inputs | trials | read | refused | unsound | slowest trial, s | unsound before |",
        "|---|---|---|---|---|---|---|---|",
    ]
    total = dict.fromkeys(COUNTS, 0)
    for kind in KINDS:
        own = sums([r for r in found if r["kind"] == kind.name])
        older = sums([r for r in before if r["kind"] == kind.name])
        if not own["trials"]:
            continue
        slowest = max(float(r["slowest_s"]) for r in found if r["kind"] == kind.name)  # type: ignore[arg-type]
        told = " | ".join(f"{own[c]:,}" for c in COUNTS)
        asked = f"{older['unsound']} of {older['trials']}" if older["trials"] else ""
        lines.append(f"| {kind.about} | {told} | {slowest:.1f} | {asked} |")
        total = {c: total[c] + own[c] for c in COUNTS}
    return [*lines, f"| **all** | {' | '.join(f'**{total[c]:,}**' for c in COUNTS)} | | |"]


def sums(found: Sequence[dict[str, object]]) -> dict[str, int]:
    """Counts over rows."""
    every = [{**row, "unsound": len(row["failed"])} for row in found]  # type: ignore[arg-type]
    return {c: sum(int(row[c]) for row in every) for c in COUNTS}  # type: ignore[call-overload]
