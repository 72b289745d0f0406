"""Public reports that failed at first, as small programs with sound twins: is each told at its stage, and by its name?

    python benchmarks/cases.py CASES --keep FOLDER

CASES holds truth.json, prepare.py and a folder for each case with faulty.py and sound.py (../shared/cases). Records are kept
below FOLDER and used again; what is told of them is asked anew. Writes results/cases.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "cases.md"
SUSPECTED = 0.5
HEAD = """# Cases

Made by `make bench-cases CASES=FOLDER`. Ten programs after public reports that were told wrongly when they were first
tried, each beside its sound twin. *stage*: whether the first finding sits where the fault is. *name*: its code; in bold where
the case's own list has it (written before causes of whole stages had names). *points*: told, and lost in truth (one seed).
Made while these ten were known: it is no held-out figure.

| case | stage | name | confidence | points told | points lost | the sound twin |
|---|---|---|---|---|---|---|
"""


def main() -> None:
    """Record, ask, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path)
    parser.add_argument("--keep", type=Path, default=Path(".bench-cases"))
    parser.add_argument("--only", nargs="*", default=[])
    args = parser.parse_args()
    data = args.keep.absolute() / "data"
    if not data.is_dir():
        subprocess.run([sys.executable, str(args.cases / "prepare.py"), str(data)], check=True)
    rows = []
    for truth in json.loads((args.cases / "truth.json").read_text()):
        if args.only and truth["name"] not in args.only:
            continue
        arguments = truth["arguments"].replace("{D}", str(data))
        faulty, sound = (asked(args.cases / truth["name"], arguments, kind, args.keep) for kind in ("faulty", "sound"))
        rows.append(row(truth, faulty, sound))
        print(rows[-1], flush=True)
    if not args.only:
        RESULTS.write_text(HEAD + "\n".join(rows) + "\n")


def asked(case: Path, arguments: str, kind: str, keep: Path) -> dict[str, Any]:
    """The diagnosis of one program as JSON; it is recorded where there is no record yet."""
    record = keep.absolute() / f"{case.name}-{kind}"
    if not (record / "events.jsonl").is_file():
        work = keep.absolute() / "programs" / case.name
        shutil.copytree(case, work, dirs_exist_ok=True)
        begun = time.monotonic()
        command = [sys.executable, "-m", "valgap", "run", "--out", str(record), f"{kind}.py", *arguments.split()]
        subprocess.run(command, cwd=work, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
        print(f"{record.name}: recorded in {time.monotonic() - begun:.0f} s", file=sys.stderr)
    command = [sys.executable, "-m", "valgap", "diagnose", str(record), "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def likely(told: dict[str, Any]) -> list[dict[str, Any]]:
    """The findings that valgap would bet on, the first one first."""
    return [f for f in told["findings"] if f["confidence"] >= SUSPECTED]


def row(truth: dict[str, Any], faulty: dict[str, Any], sound: dict[str, Any]) -> str:
    """One line of the table."""
    first = next(iter(likely(faulty)), None)
    printed = truth["printed"]
    lost = truth["accuracy_sound"] - (printed if printed is not None else truth["accuracy_faulty"])
    quiet = ", ".join(f"{f['code']} {f['confidence']:.2f}" for f in likely(sound)) or "silent"
    if first is None:
        return f"| {truth['name']} | nothing told |  |  |  | {lost:.1f} | {quiet} |"
    right = "right" if first["stage"] in truth["stage"] else f"wrong ({first['stage']})"
    code = f"**{first['code']}**" if first["code"] in truth["codes"] else first["code"]
    name = f"{code} {first['name']}"
    points = f"{first['severity_points']:.1f} | {lost:.1f}"
    return f"| {truth['name']} | {right} | {name} | {first['confidence']:.2f} | {points} | {quiet} |"


if __name__ == "__main__":
    main()
