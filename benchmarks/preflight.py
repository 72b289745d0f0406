"""Preflight on generated faults and public reports: is the stage right at first, how long does it take, what of healthy programs?

    python benchmarks/preflight.py FOLDER_WITH_THE_DATA_SETS [--cases CASES] [--half calibration] [--limit 40] [--minutes 9]

The programs are those of the campaign (docs/campaign.md) whose fault costs three points or more and shows by the end of the first
epoch, beside healthy ones; with --cases also the ten public reports and their twins. A row goes to results/preflight.jsonl at
once: what is there is not done again, so that one calls this until nothing is left. Writes results/preflight.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from campaign import report
from campaign.data import prepare
from campaign.harness import arguments, last_line, write
from campaign.kind import HALVES
from campaign.plan import Program, programs
from campaign.report import HARMLESS, UNSOUND, share, true_cost

HERE = Path(__file__).resolve().parent
ROWS, TABLE = HERE / "results" / "preflight.jsonl", HERE / "results" / "preflight.md"
SURE = 0.5
TARGET_S = 60.0
# What these do comes later than the end of the first epoch, or shows in the end alone.
WHOLE_RUN = {
    *("short_epochs", "other_epochs_head", "stops_at_once", "good_enough_at_half", "stops_when_better", "half_precision_copy"),
    *("averaged_with_the_start", "never_reset", "epoch_before", "warm_up_never_ends", "schedule_each_batch", "huge_epsilon"),
    *("weights_shrink", "head_reset_each_epoch", "almost_all_dropped", "few_files", "rare_classes", "few_features_left"),
}
HEAD = f"""# Preflight

Made by `make bench-preflight DATA=FOLDER`; what is in it: docs/preflight.md. Each program is run by `valgap preflight`, never to
its end. *stage*: the first stage that is told with confidence {SURE} or more is where the fault is. *beyond*: seconds beyond the
script's own start. Faults are those of the campaign that cost {HARMLESS:.0f} points or more and show by the end of the first
epoch, a choice by the kind of fault that was made before any of them was run; what shows later, preflight lists as not told.
"""


def main() -> None:
    """Do what is missing until the time is up, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cases", type=Path, help="folder with the public reports")
    parser.add_argument("--half", choices=HALVES, default="calibration")
    parser.add_argument("--limit", type=int, default=10_000, help="only the first so many faulty programs of the campaign")
    parser.add_argument("--healthy", type=int, default=10_000, help="only the first so many healthy ones")
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--only", default="", help="names of programs, kinds, stages or cases, separated by commas")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--keep", type=Path, default=Path(".bench-preflight"))
    parser.add_argument("--table", action="store_true", help="only write the table")
    given = parser.parse_args()
    keep = given.keep.resolve()
    if not given.table:
        work(given, keep)
    TABLE.write_text(table(list(rows().values())))


def rows() -> dict[str, dict[str, Any]]:
    """All rows so far, by name; of two with one name the later counts."""
    lines = ROWS.read_text().splitlines() if ROWS.exists() else []
    return {r["name"]: r for r in map(json.loads, lines)}


def work(given: argparse.Namespace, keep: Path) -> None:
    """The programs that have no row yet, one after another."""
    prepare(given.data.resolve(), keep / "data")
    end = time.monotonic() + 60 * given.minutes
    only = set(filter(None, given.only.split(",")))
    done = {} if given.again else rows()
    jobs = [*(cases(given.cases, keep) if given.cases is not None else ()), *chosen(given.half, given.limit, given.healthy)]
    for job in jobs:
        name, words = (job["name"], {job["name"], job["case"]}) if isinstance(job, dict) else (job.name, words_of(job))
        if (only and not only & words) or name in done:
            continue
        if time.monotonic() > end:
            print("time is up", flush=True)
            return
        row = of_case(job) if isinstance(job, dict) else of_program(job, keep)
        with ROWS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        told = [(f["code"], f["stage"], round(f["confidence"], 2)) for f in row["findings"]]
        print(
            name, *row["kinds"], row["stages"], "->", told, row["stages_told"], row["seconds"], row.get("error", ""), flush=True
        )


def words_of(program: Program) -> set[str]:
    """What --only may name it by."""
    return {program.name, *program.stages, *(k.name for k in program.kinds), "healthy" if program.healthy else "faulty"}


def chosen(half: str, limit: int, healthy: int) -> list[Program]:
    """Programs with one fault that is told early and costs something, a stage after another; then healthy ones."""
    truth = {
        (r["label"], r["name"], r.get("seed", 0)): r for r in map(json.loads, report_rows().splitlines()) if r["label"] == "bare"
    }
    faulty: dict[str, list[Program]] = defaultdict(list)
    sound: list[Program] = []
    for program in programs():
        cost = true_cost(program, truth) if program.half == half else None
        if cost is None:
            continue
        if program.healthy:
            sound += [program] if cost[0] < UNSOUND else []
        elif len(program.kinds) == 1 and program.kinds[0].name not in WHOLE_RUN and cost[0] >= HARMLESS:
            faulty[program.stages[0]].append(program)
    in_turn = [p for turn in zip_longest(*(_kinds_in_turn(v) for _, v in sorted(faulty.items()))) for p in turn if p is not None]
    plain, habits = [p for p in sound if not p.kinds], [p for p in sound if p.kinds]
    mixed = [p for pair in zip_longest(_kinds_in_turn(habits), plain) for p in pair if p is not None]
    return [*in_turn[:limit], *mixed[:healthy]]


def _kinds_in_turn(of: list[Program]) -> list[Program]:
    """A program of each kind, then the second of each..."""
    groups: dict[str, list[Program]] = defaultdict(list)
    for program in of:
        groups[program.kinds[0].name if program.kinds else program.base.style.name].append(program)
    return [p for turn in zip_longest(*groups.values()) for p in turn if p is not None]


def report_rows() -> str:
    """The campaign's rows."""
    return Path(report.__file__).parents[1].joinpath("results", "campaign.jsonl").read_text()


def cases(folder: Path, keep: Path) -> Iterator[dict[str, Any]]:
    """The public reports, each faulty and sound; what shows in the end alone is told of the sound one only."""
    data = keep / "cases"
    if not data.is_dir():
        subprocess.run([sys.executable, str(folder / "prepare.py"), str(data)], check=True)
    for truth in json.loads((folder / "truth.json").read_text()):
        for kind in ("faulty", "sound"):
            if truth["name"] == "plateau_min" and kind == "faulty":
                continue  # a schedule of the wrong mode
            command = [str(folder / truth["name"] / f"{kind}.py"), *truth["arguments"].replace("{D}", str(data)).split()]
            stages = truth["stage"] if kind == "faulty" else []
            yield {"name": f"{truth['name']} {kind}", "case": truth["name"], "command": command, "stages": stages}


def of_case(case: dict[str, Any]) -> dict[str, Any]:
    """The row of a public report."""
    return {"name": case["name"], "of": "cases", "kinds": [], "stages": case["stages"], **asked(case["command"])}


def of_program(program: Program, keep: Path) -> dict[str, Any]:
    """The row of a program of the campaign."""
    where = Path(tempfile.mkdtemp())
    try:
        file = write(program.draft, where / "program", program.base.seed, probed=False)
        said = asked(arguments(program, file, keep))
    finally:
        shutil.rmtree(where)
    kinds = [k.name for k in program.kinds]
    return {"name": program.name, "of": program.half, "kinds": kinds, "stages": list(program.stages), **said}


def asked(command: list[str]) -> dict[str, Any]:
    """What preflight says of a program."""
    where = Path(tempfile.mkdtemp())
    try:
        begun = time.monotonic()
        call = [sys.executable, "-m", "valgap", "preflight", "--json", "--out", str(where / "record"), *command]
        done = subprocess.run(call, cwd=where, capture_output=True, text=True)
        wall = round(time.monotonic() - begun, 1)
        try:
            said = json.loads(done.stdout)
        except json.JSONDecodeError:
            error = last_line(done.stderr)
            return {"exit": done.returncode, "findings": [], "stages_told": [], "seconds": None, "wall": wall, "error": error}
        one = said["preflight"]
        findings = [f for f in said["findings"] if (f["confidence"] or 0) >= SURE]
        at_fault = [s["stage"] for s in said.get("stages", ()) if s["verdict"] == "at fault" and (s["confidence"] or 0) >= SURE]
        keep = ("code", "stage", "confidence", "severity_points")
        row = {
            "exit": done.returncode,
            "findings": [{k: f[k] for k in keep} for f in findings],
            "stages_told": at_fault,
            "seconds": one["seconds"],
            "wall": wall,
            "ended_by": one["script"]["ended_by"],
            "projected": (one["projected"] or {}).get("seconds"),
        }
        trouble = one["script"]["error"] or one["unjudged"]
        return {**row, "error": trouble} if trouble else row
    finally:
        shutil.rmtree(where)


def right(row: dict[str, Any]) -> bool:
    """The first stage that is told is where the fault is."""
    told = row["stages_told"] or [f["stage"] for f in row["findings"]]
    return bool(told) and told[0] in row["stages"]


def table(of: list[dict[str, Any]]) -> str:
    """The report; single programs of the held-out half are not shown."""
    lines = [
        HEAD,
        "| programs | stage right first | nothing told | beyond, median (longest), s | within 60 s |",
        "|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(r["of"] for r in of):
        own = [r for r in of if r["of"] == name]
        faulty, sound = [r for r in own if r["stages"]], [r for r in own if not r["stages"]]
        quiet = [not r["findings"] and not r["stages_told"] for r in faulty]
        took = sorted(r["seconds"] for r in own if r["seconds"] is not None)
        middle = f"{took[len(took) // 2]:.0f} ({took[-1]:.0f})" if took else ""
        within = share([s <= TARGET_S for s in took])
        lines.append(f"| {name}, faulty | {share([right(r) for r in faulty])} | {sum(quiet)} | {middle} | {within} |")
        wrong = [r for r in sound if r["findings"] or r["stages_told"] or r["exit"] not in (0,)]
        lines.append(f"| {name}, healthy | suspected: {share([r in wrong for r in sound])} | | | |")
    lines += ["", "| program | fault | told | beyond, s |", "|---|---|---|---|"]
    for row in of:
        if row["of"] == "heldout":
            continue
        told = (
            ", ".join(f"{f['code']} {f['stage']} {f['confidence']:.2f}" for f in row["findings"]) or row.get("error") or "nothing"
        )
        mark = ("right: " if right(row) else "wrong: " if row["findings"] else "") if row["stages"] else ""
        fault = f"{' '.join(row['kinds'])} ({'/'.join(row['stages'])})" if row["stages"] else " ".join(row["kinds"]) or "healthy"
        lines.append(f"| {row['name']} | {fault} | {mark}{told.replace('|', ' ')[:160]} | {row['seconds']} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
