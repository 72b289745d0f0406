"""Ten faults between processes and their ten sound twins, under torchrun on two; writes results/ranks.jsonl and results/ranks.md.

python benchmarks/ranks.py DATA [--only NAME] [--keep FOLDER]

DATA is a folder with train/CLASS and val/CLASS. What is done already (results/ranks.jsonl) is not done again; delete the file
to begin anew. A twin's suspicion counts whatever it is of.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rank_program import NAMES

from valgap import diagnose
from valgap.diagnosis import suspected

HERE = Path(__file__).parent
ROWS, PAGE = HERE / "results" / "ranks.jsonl", HERE / "results" / "ranks.md"
PRINTED = re.compile(r"val accuracy (\d\.\d+)")


def tried(data: Path, name: str, kind: str, folder: Path) -> dict[str, Any]:
    """One program, recorded by all its processes and diagnosed."""
    out = folder / f"{name}-{kind}"
    program = [str(HERE / "rank_program.py"), str(data), name, kind]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]
    launcher += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    told = subprocess.run(
        [*launcher, "-m", "valgap", "run", "--out", str(out), *program], capture_output=True, text=True, env=environment
    )
    accuracies = [float(v) for v in PRINTED.findall(told.stdout)]
    if told.returncode:
        raise SystemExit(f"{name} {kind} ended with status {told.returncode}:\n{told.stderr[-2000:]}")
    diagnosis = diagnose(out, images=0)
    return {
        "name": name,
        "kind": kind,
        "cause": NAMES[name][0],
        "suspected": [[j.check.code, round(j.outcome.confidence, 2)] for j in suspected(diagnosis)],
        "accuracy": accuracies[-1] if accuracies else None,
        "recorded": diagnosis.validation.value if diagnosis.validation else None,
        "ranks": len(diagnosis.run.ranks),
    }


def page(rows: list[dict[str, Any]]) -> str:
    """The table."""
    named = sum(bool(r["suspected"]) and r["suspected"][0][0] == r["cause"] for r in rows if r["kind"] == "faulty")
    faulty = sum(r["kind"] == "faulty" for r in rows)
    silent = sum(not r["suspected"] for r in rows if r["kind"] == "sound")
    lines = [
        "# Faults between processes",
        "",
        "Made by `make bench-ranks DATA=FOLDER`: benchmarks/rank_program.py under torchrun on two processes (gloo).",
        "",
        f"**Named first: {named} of {faulty}; sound twins without suspicion: {silent} of {len(rows) - faulty}.**",
        "",
        "| fault | cause | named (confidence) | accuracy | the twin | its accuracy | said of it |",
        "|---|---|---|---|---|---|---|",
    ]
    by_place = {(r["name"], r["kind"]): r for r in rows}
    for name, (cause, twin) in NAMES.items():
        bad, good = by_place.get((name, "faulty")), by_place.get((name, "sound"))
        if bad is None or good is None:
            continue
        lines.append(
            f"| {name} | {cause} | {said(bad)} | {bad['accuracy']:.3f} | {twin} | {good['accuracy']:.3f} | {said(good)} |"
        )
    return "\n".join(lines) + "\n"


def said(row: dict[str, Any]) -> str:
    """The suspicions in order."""
    return ", ".join(f"{code} ({confidence:.2f})" for code, confidence in row["suspected"]) or "nothing"


def main() -> None:
    """Try what is not in the table yet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", help="this fault and its twin, also if it was tried before")
    parser.add_argument("--keep", type=Path, help="keep the records in this folder")
    options = parser.parse_args()
    rows = [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []
    rows = [r for r in rows if r["name"] != options.only]
    done = {(r["name"], r["kind"]) for r in rows}
    with tempfile.TemporaryDirectory() as scratch:
        for name in NAMES:
            for kind in ("faulty", "sound"):
                if (name, kind) in done or (options.only and name != options.only):
                    continue
                rows.append(tried(options.data, name, kind, options.keep or Path(scratch)))
                print(f"{name:14} {kind:6} {said(rows[-1])}", flush=True)
                ROWS.write_text("".join(json.dumps(r) + "\n" for r in rows))
    PAGE.write_text(page(rows))
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
