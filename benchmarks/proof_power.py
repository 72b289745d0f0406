"""How often re-runs decide: generated programs of a known true cost, diagnosed with a budget; writes results/proof_power.md.

python benchmarks/proof_power.py FOLDER_WITH_THE_DATA_SETS --label after [--share 1] [--minutes 9] [--limit 10] [--only NAME,NAME]

Programs and true costs are those of the campaign's calibration half (campaign.py must have run them bare); faulty ones count
where the fault costs 5 points or .1 nat. Each is recorded and judged once; then `valgap diagnose RUN --budget B --json` is
timed. A row a program goes to results/proof_power.jsonl at once, so that one calls this until nothing is left.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from campaign.data import prepare
from campaign.harness import arguments, write
from campaign.kind import STAGES
from campaign.plan import Program, programs
from campaign.report import share, table, true_cost
from campaign.stages_of_codes import STAGE

from valgap.record.reader import read_record

HERE = Path(__file__).resolve().parent
TRUTH = HERE / "results" / "campaign.jsonl"
ROWS = HERE / "results" / "proof_power.jsonl"
TABLE = HERE / "results" / "proof_power.md"
LEAST_POINTS, LEAST_NATS = 5.0, 0.1
LEAST_BUDGET_S = 60.0
SUSPECTED = 0.5
MEANINGFUL_POINTS = 2.0  # as in valgap.experiments.verdicts: less is not worth a remedy
Row = dict[str, Any]
INTRODUCTION = """Made by `make bench-proof-power DATA=FOLDER`. Faulty programs of the campaign's calibration half whose fault
costs 5 points or .1 nat (true cost: the hand-made twin's result less the program's, both run without valgap), and healthy ones.
Each was recorded and judged once; then `valgap diagnose RUN --budget B` ran, B being this share of the script's own time, of at
least 60 s. Right: a cause or stage is confirmed at a stage where the fault is. Decided: one at such a stage is confirmed or
refuted. Elsewhere: something is confirmed at other stages, as gaining 2 points or more. `load`: how busy the machine was with
other things, as it began, and by what the budget was multiplied for that (`--stretch`)."""


def read_rows(file: Path) -> list[Row]:
    """The rows of a file, oldest first."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def costs() -> dict[str, tuple[float, float | None]]:
    """True points and nats of every program that has them, by name."""
    rows = {(r["label"], r["name"], r.get("seed", 0)): r for r in read_rows(TRUTH) if r["label"] == "bare"}
    known = {p.name: true_cost(p, rows) for p in programs() if p.half == "calibration"}
    return {name: cost for name, cost in known.items() if cost is not None}


def chosen(cost: dict[str, tuple[float, float | None]], healthy: bool) -> list[Program]:
    """The programs in the order in which they are tried: a fault of each stage in turn; or the healthy ones."""
    half = [p for p in programs() if p.half == "calibration" and p.name in cost]
    if healthy:
        return [p for p in half if p.healthy and cost[p.name][0] < LEAST_POINTS]
    costly = [p for p in half if not p.healthy and (cost[p.name][0] >= LEAST_POINTS or (cost[p.name][1] or 0) >= LEAST_NATS)]
    by_stage = [[p for p in costly if p.stages[0] == stage] for stage in STAGES]
    return [p for turn in zip_longest(*by_stage) for p in turn if p is not None]


def recorded(program: Program, keep: Path) -> Path:
    """The program's record, judged once without re-runs; made where it is not there yet."""
    place = keep / "proof" / program.name
    record = place / "record"
    if not (place / "judged.json").exists():
        shutil.rmtree(place, ignore_errors=True)
        file = write(program.draft, place / "program", program.base.seed, probed=False)
        valgap(["run", "--out", str(record), *arguments(program, file, keep)], place)
        said, _ = valgap(["diagnose", str(record), "--json"], place)
        if (record / "experiments").is_dir():
            (record / "experiments").rename(place / "measured")
        (place / "judged.json").write_text(json.dumps(said))
    # What proof costs is measured from there: measurements that did not fit after the run are made, no re-run is.
    shutil.rmtree(record / "experiments", ignore_errors=True)
    if (place / "measured").is_dir():
        shutil.copytree(place / "measured", record / "experiments", symlinks=True)
    return record


def valgap(command: Sequence[str], where: Path) -> tuple[Row, Row]:
    """(what it said as JSON, what it took) of a valgap command."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run([sys.executable, "-m", "valgap", *command], cwd=where, capture_output=True, text=True)
    after, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - begun
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    try:
        said = json.loads(done.stdout) if command[0] == "diagnose" else {}
    except json.JSONDecodeError:
        said = {"error": (done.stderr.strip().splitlines() or ["nothing was said"])[-1][-300:]}
    return said, {"seconds": round(seconds, 1), "cpu_s": round(processor, 1)}


def asked(program: Program, label: str, part: float, keep: Path, stretch: float = 1.0) -> Row:
    """The row of one program: what re-runs within its budget say of it."""
    record = recorded(program, keep)
    script_s = read_record(str(record)).seconds
    budget = stretch * part * max(LEAST_BUDGET_S, script_s)
    load = round(os.getloadavg()[0], 1)
    said, took = valgap(["diagnose", str(record), "--budget", f"{budget:.1f}s", "--json"], record.parent)
    row = {"label": label, "name": program.name, "share": part, "script_s": round(script_s, 1), "budget_s": round(budget, 1)}
    row |= {**took, "load": load, "stretch": stretch}
    return row | answer(said) if "error" not in said else row | said


def answer(said: Row) -> Row:
    """What a row keeps of `valgap diagnose --json`."""
    tried = [f for f in said["findings"] if (f["confidence"] or 0) >= SUSPECTED or f["verdict"] == "confirmed"]
    return {
        "causes": [cause(f) for f in tried],
        "experiments": {
            k: v
            for k, v in (said["experiments"] or {}).items()
            if k in ("arms", "seeds", "epochs", "recorded_epochs", "train_fraction", "fidelity", "seconds", "forked", "notes")
        },
        "proposals": said.get("proposals", []),
    }


def cause(f: Row) -> Row:
    """A finding as a row keeps it."""
    points, nats = f["effect_points"], f["effect_nats"]
    return {
        "code": f["code"],
        "stage": f.get("stage") or STAGE.get(f["code"]),
        "verdict": f["verdict"],
        "rests_on": f["rests_on"],
        "points": [round(points[k], 2) for k in ("value", "low", "high")] if points else None,
        "nats": [round(nats[k], 3) for k in ("value", "low", "high")] if nats else None,
        "seeds": points["seeds"] if points else 0,
        "reason": f["reason"],
    }


class Tried:
    """A program's row beside what is true of it."""

    def __init__(self, program: Program, points: float, nats: float | None, row: Row) -> None:
        self.program, self.points, self.nats, self.row = program, points, nats, row
        self.causes: list[Row] = row.get("causes", [])

    def met(self, one: Row) -> bool:
        """Whether a finding is of a stage where the fault is, or has a right name."""
        return one["stage"] in self.program.stages or one["code"] in self.program.codes

    @property
    def right(self) -> list[Row]:
        """What is confirmed where the fault is."""
        return [c for c in self.causes if c["verdict"] == "confirmed" and self.met(c)]

    @property
    def decided(self) -> bool:
        """Whether something where the fault is has a verdict."""
        return any(c["verdict"] in ("confirmed", "refuted") and self.met(c) for c in self.causes)

    @property
    def suspected(self) -> bool:
        """Whether the fault's stage was suspected at all: what nobody suspects cannot be proved."""
        return any(self.met(c) for c in self.causes)

    @property
    def elsewhere(self) -> list[Row]:
        """What is confirmed at other stages, as worth a remedy."""
        costly = (c for c in self.causes if c["verdict"] == "confirmed" and (c["points"] or [0.0])[0] >= MEANINGFUL_POINTS)
        return [c for c in costly if not self.met(c)]

    @property
    def covered(self) -> bool | None:
        """Whether the interval of the largest right effect holds the true cost; None where nothing is confirmed right."""
        known = [c["points"] for c in self.right if c["points"]]
        if not known:
            return None
        _, low, high = max(known, key=lambda p: abs(p[0]))
        return bool(low <= self.points <= high)


def figures(of: Sequence[Tried], healthy: Sequence[Tried]) -> dict[str, str]:
    """What is told of one label."""
    seconds = [t.row["experiments"]["seconds"] for t in of if t.row.get("experiments")]
    arms = sum(t.row["experiments"]["arms"] for t in of if t.row.get("experiments"))
    covered = [t.covered for t in of if t.covered is not None]
    ran = [t.row for t in (*of, *healthy) if t.row.get("experiments")]
    over = [r["experiments"]["seconds"] / r["budget_s"] for r in ran]
    widths = [(c["points"][2] - c["points"][1]) / 2 for t in of for c in t.right if c["points"]]
    return {
        "right confirmed": share([bool(t.right) for t in of]),
        "of those whose stage is suspected": share([bool(t.right) for t in of if t.suspected]),
        "decided": share([t.decided for t in of]),
        "confirmed elsewhere alone": share([bool(t.elsewhere) and not t.right for t in of]),
        "healthy, something confirmed": share([bool(t.elsewhere) for t in healthy]),
        "true cost within the 95 % interval": share(covered),
        "median half-width, points": f"{sorted(widths)[len(widths) // 2]:.1f}" if widths else "",
        "arms, a minute of re-runs": f"{arms}, {60 * arms / sum(seconds):.1f}" if seconds else "",
        "most seconds of re-runs against the budget": f"{max(over):.2f}" if over else "",
    }


def line(tried: Tried) -> list[object]:
    """The table's line of one program."""
    row, program = tried.row, tried.program
    own = max(tried.causes, key=lambda c: (c["verdict"] == "confirmed", tried.met(c)), default=None)
    said = f"{own['code']} {own['verdict']}" if own else row.get("error", "nothing suspected")
    points = "{:+.1f} ({:+.1f} .. {:+.1f})".format(*own["points"]) if own and own["points"] else ""
    facts = row.get("experiments") or {}
    length = f"{facts['epochs']}/{facts['recorded_epochs']}" if facts else ""
    right = "yes" if tried.right else "decided" if tried.decided else "no" if tried.suspected else "not suspected"
    nats = f"{tried.nats:.2f}" if tried.nats is not None else ""
    names = "/".join(program.stages) or "healthy", " + ".join(k.name for k in program.kinds) or "(no change)"
    whole = f"{row['seconds']:.0f} with all else, {row['cpu_s']:.0f} of the processor"
    took = f"{facts.get('seconds', 0.0):.0f} of {row['budget_s']:.0f}; {whole}"
    busy = f"{row['load']} x {row.get('stretch', 1):g}"
    return [*names, f"{tried.points:.0f}", nats, right, said, points, facts.get("arms", ""), length, took, busy]


def write_table(rows: Iterable[Row], cost: dict[str, tuple[float, float | None]]) -> None:
    """The report: of every label and share the figures, then program by program."""
    known = {p.name: p for p in programs()}
    last = {(r["label"], r["share"], r["name"]): r for r in rows}
    text = ["# Proof within a budget", "", INTRODUCTION, ""]
    for label, part in dict.fromkeys((label, part) for label, part, _ in last):
        every = [Tried(known[n], *cost[n], r) for (lb, pt, n), r in last.items() if (lb, pt) == (label, part)]
        faulty, healthy = [t for t in every if not t.program.healthy], [t for t in every if t.program.healthy]
        text += [f"## {label}, {part:g} of the script's time: {len(faulty)} faulty, {len(healthy)} healthy", ""]
        text += table(["", ""], [[k, v] for k, v in figures(faulty, healthy).items()])
        heads = ["stage", "kind", "points", "nats", "right", "told", "effect", "arms", "epochs", "seconds", "load"]
        text += table(heads, [line(t) for t in (*faulty, *healthy)])
    TABLE.write_text("\n".join(text), encoding="utf-8")


def main() -> None:
    """Ask about what is missing until the time is up, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--label", default="after", help="which valgap is asked (the one that Python imports)")
    parser.add_argument("--share", type=float, default=1.0, help="of the script's own time (at least 60 s) that is the budget")
    parser.add_argument(
        "--stretch", type=float, default=1.0, help="times the budget, on a machine that is busy with other things"
    )
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--limit", type=int, default=10_000, help="only the first so many programs")
    parser.add_argument("--only", default="", help="names of programs, kinds or stages, separated by commas")
    parser.add_argument("--healthy", action="store_true", help="healthy programs in place of faulty ones")
    parser.add_argument("--again", action="store_true", help="ask once more about those that have a row")
    parser.add_argument("--keep", type=Path, default=Path(".bench-campaign"))
    parser.add_argument("--table", action="store_true", help="only write the table")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    cost, end = costs(), time.monotonic() + 60 * given.minutes
    only = set(filter(None, given.only.split(",")))
    wanted = chosen(cost, given.healthy)
    wanted = [p for p in wanted if not only or only & {p.name, *p.stages, *(k.name for k in p.kinds)}][: given.limit]
    done = {(r["label"], r["share"], r["name"]) for r in read_rows(ROWS)} if not given.again else set()
    keep = given.keep.resolve()
    if not given.table:
        prepare(given.data.resolve(), keep / "data")
    for program in [] if given.table else wanted:
        if (given.label, given.share, program.name) in done:
            continue
        if time.monotonic() > end:
            print("time is up", flush=True)
            break
        row = asked(program, given.label, given.share, keep, given.stretch)
        with ROWS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(program.name, program.base.name, *line(Tried(program, *cost[program.name], row)), flush=True)
    write_table(read_rows(ROWS), cost)


if __name__ == "__main__":
    main()
