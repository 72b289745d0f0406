"""Programs by somebody who had not seen valgap: is the stage of the fault named first? Writes results/strangers.md.

python benchmarks/strangers.py FOLDER_WITH_THE_DATA_SETS [--only p01,p02] [--minutes 9]
    [--label after] [--twins] [--again] [--table]

See docs/strangers.md. A program is a text in strangers/: lines after `F|` are of the faulty program alone, those after `T|` of
its sound twin. Each runs bare with two seeds, both ways, for the true cost; then it is recorded and judged. A row goes to
results/strangers.jsonl at once: what is there is not done again.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from campaign.harness import answer, last_line, timed

from valgap import confidence
from valgap.stats import wilson_interval

HERE = Path(__file__).resolve().parent
PROGRAMS = HERE / "strangers"
ROWS = HERE / "results" / "strangers.jsonl"
TABLE = HERE / "results" / "strangers.md"
SEEDS = (0, 1)
SURE = 0.5
TWIN = "sound twin, "
# From which program on, and what was done before they were asked.
GROUPS = (
    ("p01", "mechanisms were mended for these"),
    ("p41", "asked once those were done"),
    ("p52", "asked for the first time; mended for since"),
    ("p76", "of a third writer, asked for the first time; mended for since"),
    ("q01", "of a fourth writer, asked for the first time; mended for since"),
    ("r01", "of a fifth writer, asked for the first time; mended for since"),
    ("s01", "of a sixth writer, who was asked for the commonest faults; asked for the first time; mended for since"),
    ("t01", "of a seventh writer, asked for half common and half subtle faults; asked for the first time; mended for since"),
    ("u01", "of an eighth writer, asked for the same; asked for the first time; mended for since"),
    ("v01", "of a ninth writer, asked for the same; asked for the first time; mended for since"),
)
LEAST_COST = 6.0
NEAR_POINTS, NEAR_SHARE = 5.0, 0.2
READ = ("read_train", "read_val")
Row = dict[str, Any]

INTRODUCTION = """Made by `make bench-strangers DATA=FOLDER`; what is in it: docs/strangers.md. True cost: the sound twin's
printed validation accuracy less the program's (of a wrong measure: how far the printed one is off), over two seeds, without
valgap. Faults that cost less than 6 points are left out. `first asked`: what was said before anything was mended for these."""


@dataclass(frozen=True)
class Stranger:
    """A program: the stages where its fault sits (none: it is healthy), in words, and what reads its accuracy off its lines."""

    name: str
    stages: tuple[str, ...]
    what: str
    shows: str
    scale: float
    lines: tuple[str, ...]

    def text(self, twin: bool, data: Path) -> str:
        """The program, or its sound twin, on the data in that folder."""
        own, other = ("T|", "F|") if twin else ("F|", "T|")
        kept = [line.removeprefix(own) for line in self.lines if not line.startswith(other)]
        return "\n".join(kept).replace("{DATA}", str(data))


def strangers() -> list[Stranger]:
    """All programs, by name."""
    return [_read(file) for file in sorted(PROGRAMS.glob("*.txt"))]


def _read(file: Path) -> Stranger:
    lines = file.read_text(encoding="utf-8").split("\n")
    head = dict(line[2:].split(":", 1) for line in lines if line.startswith("#@"))
    meta = {k.strip(): v.strip() for k, v in head.items()}
    stages = json.loads(meta["stage"]) or []
    whole = [x for s in ([stages] if isinstance(stages, str) else stages) for x in (READ if s == "read" else (s,))]
    body = tuple(line for line in lines if not line.startswith("#@"))
    return Stranger(file.stem, tuple(whole), meta["what"], meta["re"], float(meta.get("scale", "1")), body)


def ran(one: Stranger, twin: bool, seed: int, data: Path) -> Row:
    """The accuracy (per cent) that the program prints last, without valgap."""
    where = Path(tempfile.mkdtemp())
    try:
        (where / "prog.py").write_text(one.text(twin, data), encoding="utf-8")
        os.environ["SEED"] = str(seed)
        status, out, err, seconds = timed(["prog.py"], where)
        shown = re.findall(one.shows, out)
        accuracy = float(shown[-1]) * one.scale if shown else None
        label = "twin" if twin else "bare"
        return {"label": label, "name": one.name, "seed": seed, "status": status, "accuracy": accuracy, "seconds": seconds} | (
            {"error": last_line(err)} if status else {}
        )
    finally:
        shutil.rmtree(where)


def asked(one: Stranger, label: str, data: Path, twin: bool = False) -> Row:
    """What valgap says of it, or of its sound twin."""
    where = Path(tempfile.mkdtemp())
    try:
        (where / "prog.py").write_text(one.text(twin, data), encoding="utf-8")
        os.environ["SEED"] = "0"
        _, _, err, record_s = timed(["-m", "valgap", "run", "--out", "record", "prog.py"], where)
        _, out, complaint, diagnose_s = timed(["-m", "valgap", "diagnose", "record", "--json"], where)
        row: Row = {"label": label, "name": one.name, "seed": 0, "seconds": {"record": record_s, "diagnose": diagnose_s}}
        try:
            return row | {"map": list(confidence.MAP)} | answer(json.loads(out))
        except json.JSONDecodeError:
            return row | {"findings": [], "top": None, "stages": [], "error": last_line(complaint) or last_line(err)}
    finally:
        shutil.rmtree(where)


def read_rows() -> dict[tuple[str, str, int], Row]:
    """All rows, by label, name and seed; of two with one key the later counts."""
    if not ROWS.exists():
        return {}
    return {(r["label"], r["name"], r["seed"]): r for r in map(json.loads, ROWS.read_text().splitlines())}


def cost(one: Stranger, rows: dict[tuple[str, str, int], Row]) -> float | None:
    """Points that the fault costs; None where it was not run."""
    pairs = [(rows.get(("bare", one.name, s)), rows.get(("twin", one.name, s))) for s in SEEDS]
    lost = [
        b["accuracy"] - a["accuracy"] for a, b in pairs if a and b and a["accuracy"] is not None and b["accuracy"] is not None
    ]
    if not lost:
        return None
    return abs(sum(lost)) / len(lost) if "measure" in one.stages else sum(lost) / len(lost)


def told(row: Row) -> list[tuple[str, float, float | None]]:
    """(stage, confidence, points) of what is told with confidence, first things first."""
    lines = [s for s in row.get("stages") or [] if s["verdict"] == "at fault" and (s["confidence"] or 0) >= SURE]
    return [(s["stage"], s["confidence"], s["points"]["value"] if s["points"] else None) for s in lines]


def near(points: float | None, true: float) -> bool:
    """Whether a told cost is near the true one."""
    return points is not None and abs(points - true) <= max(NEAR_POINTS, NEAR_SHARE * true)


def share(hits: list[bool]) -> str:
    """Such as 3 of 4, 75 % (30-95)."""
    if not hits:
        return "0 of 0"
    low, high = wilson_interval(sum(hits), len(hits))
    return f"{sum(hits)} of {len(hits)}, {100 * sum(hits) / len(hits):.0f} % ({100 * low:.0f}-{100 * high:.0f})"


def write_table(rows: dict[tuple[str, str, int], Row]) -> None:
    """results/strangers.md."""
    every = strangers()
    labels = [x for x in ("first asked", "after") if any(k[0] == x for k in rows)]
    lines = ["# Strangers' programs", "", INTRODUCTION, ""]
    ends = [*(first for first, _ in GROUPS[1:]), "w"]
    for (first_name, title), end in zip(GROUPS, ends, strict=True):
        chosen = [s for s in every if first_name <= s.name < end]
        if not chosen:
            continue
        lines += [f"## {chosen[0].name} .. {chosen[-1].name}: {title}", "", "| | " + " | ".join(labels) + " |"]
        lines += ["|---" * (len(labels) + 1) + "|"]
        faulty = [s for s in chosen if s.stages and (c := cost(s, rows)) is not None and abs(c) >= LEAST_COST]
        healthy = [s for s in chosen if not s.stages]
        figures: dict[str, list[str]] = {}
        for label in labels:
            said = {s.name: told(rows[label, s.name, 0]) for s in chosen if (label, s.name, 0) in rows}
            of = [s for s in faulty if s.name in said]
            first = {s.name: bool(said[s.name]) and said[s.name][0][0] in s.stages for s in of}
            close = [near(said[s.name][0][2], cost(s, rows) or 0.0) for s in of if first[s.name]]
            figures.setdefault("stage right first", []).append(share(list(first.values())))
            figures.setdefault("nothing told", []).append(share([not said[s.name] for s in of]))
            figures.setdefault("cost near, where the stage is right", []).append(share(close))
            figures.setdefault("suspicion on a healthy program", []).append(
                share([bool(said[s.name]) for s in healthy if s.name in said])
            )
            twins = [rows[TWIN + label, s.name, 0] for s in chosen if (TWIN + label, s.name, 0) in rows]
            figures.setdefault("suspicion on a sound twin", []).append(share([bool(told(r)) for r in twins]))
        lines += [f"| {name} | " + " | ".join(values) + " |" for name, values in figures.items()]
        lines += ["", "| program | fault | stage | true cost | " + " | ".join(labels) + " |", "|---" * (4 + len(labels)) + "|"]
        for s in chosen:
            lost = cost(s, rows) if s.stages else None
            cells = [
                ", ".join(f"{x[0]} {x[1]:.2f}" for x in told(r)[:2]) if (r := rows.get((label, s.name, 0))) else ""
                for label in labels
            ]
            points = f"{lost:.1f}" if lost is not None else ""
            lines.append(f"| {s.name} | {s.what} | {'/'.join(s.stages)} | {points} | " + " | ".join(cells) + " |")
        lines.append("")
    TABLE.write_text("\n".join(lines), encoding="utf-8")


def main() -> None:
    """Do what is missing until the time is up, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", default="", help="names of programs, separated by commas")
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--label", default="after", help="which valgap is asked")
    parser.add_argument("--twins", action="store_true", help="ask of the sound twins")
    parser.add_argument("--again", action="store_true", help="ask once more")
    parser.add_argument("--table", action="store_true", help="only write the table")
    given = parser.parse_args()
    rows, only = read_rows(), set(filter(None, given.only.split(",")))
    data, end = given.data.resolve(), time.monotonic() + 60 * given.minutes
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in importlib.import_module("threads").IMPORTED_ONCE:
        importlib.import_module(name)
    ask = (TWIN if given.twins else "") + given.label
    jobs = [(s, label, seed) for s in strangers() for label, seed in _jobs(s, ask, given.twins)]
    for one, label, seed in jobs:
        done = (label, one.name, seed) in rows and not (given.again and label == ask)
        if given.table or done or (only and one.name not in only):
            continue
        if time.monotonic() > end:
            print("time is up", flush=True)
            break
        row = asked(one, label, data, given.twins) if label == ask else ran(one, label == "twin", seed, data)
        rows[label, one.name, seed] = row
        with ROWS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(label, one.name, seed, row.get("accuracy", [x[:2] for x in told(row)]), row.get("error", ""), flush=True)
    write_table(rows)


def _jobs(one: Stranger, label: str, twins: bool) -> list[tuple[str, int]]:
    """(label, seed) of its runs; a healthy program has no twin."""
    if twins:
        return [(label, 0)] if one.stages else []
    bare = [("bare", s) for s in SEEDS] + ([("twin", s) for s in SEEDS] if one.stages else [])
    return [*bare, (label, 0)]


if __name__ == "__main__":
    main()
