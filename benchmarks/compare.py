"""Pairs of runs, held side by side: is the first departure the right one, and are equal pairs left alone?

    python benchmarks/compare.py [--half calibration] [--minutes 9] [--budget 3m]

The pairs stand in compare_pairs.py. A row goes to results/compare.jsonl at once: what is there is not done again, so that one
calls this until nothing is left. With --budget, causes are proved by re-runs. Writes results/compare.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from compare_pairs import PAIRS, Pair, make_data

HERE = Path(__file__).resolve().parent
ROWS, TABLE = HERE / "results" / "compare.jsonl", HERE / "results" / "compare.md"
HEAD = """# Comparisons

Made by `make bench-compare`; what is compared: benchmarks/compare_pairs.py, written before any pair was run. *right*: the first
thing told is one of those that were changed, or, of pairs that are alike, nothing is blamed. *exactly*: the verdict is that of
the kind of pair (equal, rounding, chance). *proved*: where the whole first program makes a difference in re-runs, a single piece
of it does; then the pairs whose change makes none, and those that the budget leaves undecided.
"""


def main() -> None:
    """Do what is missing until the time is up, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=("calibration", "held out"), default=None)
    parser.add_argument("--only", default="", help="names of pairs, separated by commas")
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--budget", default="", help="for proofs, each; none without it")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--keep", type=Path, default=Path(".bench-compare"))
    given = parser.parse_args()
    keep = given.keep.resolve()
    make_data(keep)
    end = time.monotonic() + 60 * given.minutes
    only = set(filter(None, given.only.split(",")))
    for pair in PAIRS:
        done = rows().get(pair.name, {})
        wanted = (not only or pair.name in only) and given.half in (None, pair.half)
        if not wanted or (not given.again and done and (done.get("proofs") is not None or not given.budget or pair.alike)):
            continue
        if time.monotonic() > end:
            print("time is up", flush=True)
            break
        row = row_of(pair, keep, given.budget if not pair.alike else "")
        row["proofs"] = done.get("proofs") if row["proofs"] is None else row["proofs"]  # made anew only with a budget
        with ROWS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(pair.name, row["verdict"], row["quantity"], "right" if row["right"] else "WRONG", row["why"], flush=True)
    TABLE.write_text(table(list(rows().values())))


def rows() -> dict[str, dict[str, Any]]:
    """All rows so far, by name; of two with one name the later counts."""
    lines = ROWS.read_text().splitlines() if ROWS.exists() else []
    return {r["name"]: r for r in map(json.loads, lines)}


def row_of(pair: Pair, keep: Path, budget: str) -> dict[str, Any]:
    """Both runs of a pair, recorded where they are not yet, and what is told of them."""
    good = recorded(keep, f"{pair.style}-good", pair.first(), f"{pair.style}.py", "data", ())
    bad = recorded(keep, pair.name, pair.second(), f"{pair.style}.py", pair.data, pair.arguments)
    command = [sys.executable, "-m", "valgap.cli", "compare", str(good), str(bad), "--json"]
    started = time.monotonic()
    done = subprocess.run([*command, *(["--budget", budget] if budget else [])], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{pair.name}: {done.stderr}")
    told = json.loads(done.stdout)
    quantity = (told["headline"] or {}).get("quantity")
    right = told["verdict"] in ("equal", "rounding", "chance") if pair.alike else quantity in pair.quantities
    proofs = [(p["name"].replace(f"{keep}/", ""), p["verdict"]) for p in told["proofs"]] if budget else None
    return {
        "name": pair.name,
        "half": pair.half,
        "what": pair.what,
        "alike": pair.alike,
        "verdict": told["verdict"],
        "status": done.returncode,
        "quantity": quantity,
        "where": (told["headline"] or told["parted"] or {}).get("where"),
        "others": [d["quantity"] for d in told["departures"][1:]],
        "right": right,
        "exactly": told["verdict"] in pair.verdicts if pair.alike else told["verdict"] == "parted",
        "gain": (told["gain_points"] or {}).get("value"),
        "p": (told["gain_points"] or {}).get("p_value"),
        "proofs": proofs,
        "why": told["why"],
        "seconds": round(time.monotonic() - started, 1),
    }


def recorded(keep: Path, name: str, text: str, script: str, data: str, arguments: Any) -> Path:
    """The run directory of a program, which is run where there is none."""
    folder = keep / name
    run = folder / "run"
    if run.is_dir():
        return run
    folder.mkdir(parents=True, exist_ok=True)
    (folder / script).write_text(text)
    command = [
        sys.executable,
        "-m",
        "valgap.cli",
        "run",
        "--closing",
        "0",
        "--out",
        str(run),
        script,
        str(keep / data),
        *arguments,
    ]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return run


def table(done: list[dict[str, Any]]) -> str:
    """The whole file."""
    lines = [HEAD, "| half | pairs | right | exactly | proved |", "|---|---|---|---|---|"]
    for half in ("calibration", "held out"):
        own = [r for r in done if r["half"] == half]
        for alike, word in ((False, "parted"), (True, "alike")):
            some = [r for r in own if r["alike"] == alike]
            tried = [r for r in some if r["proofs"] is not None]
            sure, none = ([r for r in tried if whole(r) == v] for v in ("makes the difference", "makes none"))
            told = f"{sum(is_proved(r) for r in sure)} of {len(sure)}; makes none {len(none)}"
            proved = f"{told}; undecided {len(tried) - len(sure) - len(none)}" if tried else "-"
            right, exact = (f"{sum(r[k] for r in some)} of {len(some)}" for k in ("right", "exactly"))
            lines.append(f"| {half} | {word} | {right} | {exact} | {proved} |")
    lines += ["", "| pair | half | changed | verdict | first | where | points | proofs |", "|---|---|---|---|---|---|---|---|"]
    for r in sorted(done, key=lambda r: (r["half"], r["alike"], r["name"])):
        proofs = "; ".join(f"{n}: {v}" for n, v in r["proofs"] or ()) or "-"
        points = "-" if r["gain"] is None else f"{r['gain']:+.1f} (p {r['p']:.2g})"
        right = "" if r["right"] else " **wrong**"
        first = f"{r['quantity'] or '-'}{right}"
        lines.append(
            f"| {r['name']} | {r['half']} | {r['what']} | {r['verdict']} | {first} | {r['where'] or '-'} | {points} | {proofs} |"
        )
    return "\n".join(lines) + "\n"


def whole(row: dict[str, Any]) -> str:
    """What re-runs say of the whole first program in the second one's place."""
    return next((verdict for name, verdict in row["proofs"] if name.startswith("the whole")), "")


def is_proved(row: dict[str, Any]) -> bool:
    """Whether a single change, put back, is told to make the difference."""
    return any(verdict == "makes the difference" and not name.startswith("the whole") for name, verdict in row["proofs"])


if __name__ == "__main__":
    main()
