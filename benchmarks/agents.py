"""Whether an agent gets there: generated faulty programs through `valgap mcp` by a scripted client; writes results/agents.md.

python benchmarks/agents.py FOLDER_WITH_THE_DATA_SETS [--limit 20] [--minutes 9] [--budget 120] [--only NAME,NAME]

Programs and true accuracies are those of the campaign's calibration half (campaign.py must have run them bare). The client is no
model: it calls run, prove and fix, one after the other, and reads nothing but the answers. A row a program goes to
results/agents.jsonl at once, so that one calls this until nothing is left. Needs the extra `mcp`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from campaign.data import prepare
from campaign.harness import arguments, write
from campaign.plan import Program, digest
from campaign.report import table
from mcp import Client, StdioServerParameters, stdio_client
from proof_power import LEAST_POINTS, TRUTH, chosen, costs, read_rows

from valgap.agents.answer import MAX_BYTES

HERE = Path(__file__).resolve().parent
ROWS, TABLE = HERE / "results" / "agents.jsonl", HERE / "results" / "agents.md"
SLOWEST_S = 20.0  # of the processor, for the program alone
WITHIN_POINTS = 2.0
RUN = re.compile(r"VERDICT: run (\S+): ")
AFTER = re.compile(r"validation accuracy ([\d.]+)% -> ([\d.]+)%")
Row = dict[str, Any]
INTRODUCTION = """Made by `make bench-agents DATA=FOLDER`. Faulty programs of the campaign's calibration half that cost 5 points
or more, one of each stage in turn but of the files (what is missing or spoilt there no edit brings back), each taken through
`valgap mcp` over standard input and output by a scripted client: run, prove, fix (with `suspected=True` where nothing was
confirmed). Twin: what the same program without the fault reaches, run without valgap. Recovered: the fixed program comes within
2 points of it, or is better. Where nothing is suspected, or no remedy is known as code, there is nothing to fix, and that counts
as not recovered."""


def accuracies() -> dict[str, float]:
    """What programs and twins reach without valgap, in percent, by name (the first seed)."""
    rows = [r for r in read_rows(TRUTH) if r["label"] == "bare" and not r.get("seed") and r.get("accuracy") is not None]
    return {r["name"]: 100 * r["accuracy"] for r in rows}


def candidates() -> list[Program]:
    """Faulty programs in the order in which they are tried."""
    cost, known = costs(), accuracies()
    seconds = {r["name"]: r["seconds"] for r in read_rows(TRUTH) if r["label"] == "bare" and not r.get("seed")}
    # Where the measurement alone is wrong, the model is as good as its twin's: nothing is there to recover.
    lost = {p.name: known.get(digest(p.base.name), 0.0) - known.get(p.name, 0.0) for p in chosen(cost, False)}
    # Images that are missing, or spoilt where they lie, no edit of a program brings back.
    of_code = [p for p in chosen(cost, False) if set(p.stages) != {"files"}]
    short = [p for p in of_code if seconds.get(p.name, 1e9) <= SLOWEST_S]
    return [p for p in short if lost[p.name] >= LEAST_POINTS]


async def taken_through(program: Program, keep: Path, budget_s: int) -> Row:
    """The row of one program."""
    place = keep / "agents" / program.name
    shutil.rmtree(place, ignore_errors=True)
    file = write(program.draft, place / "program", program.base.seed, probed=False)
    script, *given = arguments(program, file, keep)
    env = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "PYTHONPATH", "OMP_NUM_THREADS")}
    start = StdioServerParameters(command=sys.executable, args=["-m", "valgap", "mcp"], env=env, cwd=place)
    row: Row = {"name": program.name, "kinds": [k.name for k in program.kinds], "stages": list(program.stages), "calls": 0}
    begun = time.monotonic()
    async with Client(stdio_client(start)) as client:

        async def call(tool: str, **arguments: Any) -> str:
            got = await client.call_tool(tool, arguments)
            text: str = got.content[0].text
            assert len(text.encode()) <= MAX_BYTES
            row["calls"] += 1
            row[tool] = text.splitlines()[0][:300]
            return text

        run = RUN.match(await call("run", script=script, args=given))
        if run is not None:
            proved = await call("prove", run=run[1], budget_s=budget_s)
            confirmed = "- fix(run=" in proved and "suspected=True" not in proved
            fixed = AFTER.search(await call("fix", run=run[1], out="fixed", budget_s=budget_s, suspected=not confirmed))
            row["confirmed"] = confirmed
            row["before"], row["after"] = (float(fixed[1]), float(fixed[2])) if fixed else (None, None)
    shutil.rmtree(place, ignore_errors=True)
    return {**row, "seconds": round(time.monotonic() - begun)}


def recovered(row: Row) -> bool:
    """Whether the fixed program comes within 2 points of its twin."""
    return row.get("after") is not None and row["after"] >= row["twin"] - WITHIN_POINTS


def write_table(rows: list[Row]) -> None:
    """The page."""
    lines = []
    for r in rows:
        shown = [_percent(r.get(name)) for name in ("before", "after", "twin")]
        ends = ["yes" if right else "no" for right in (r.get("confirmed"), recovered(r))]
        lines.append((", ".join(r["kinds"]), ", ".join(r["stages"]), r["calls"], ends[0], *shown, ends[1], r["seconds"]))
    head = ("kinds", "stages", "calls", "confirmed", "before", "after", "twin", "recovered", "seconds")
    told = (
        f"Recovered: {sum(map(recovered, rows))} of {len(rows)}, in at most {max((r['calls'] for r in rows), default=0)} calls."
    )
    TABLE.write_text("\n".join(["# Through the tools for agents", "", INTRODUCTION, "", told, "", *table(head, lines)]))


def _percent(value: float | None) -> str:
    return f"{value:.1f}" if value is not None else "-"


def main() -> None:
    """Do what is missing until the time is up, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--budget", type=int, default=120, help="seconds of prove, and of fix")
    parser.add_argument("--only", default="", help="names of programs, separated by commas")
    parser.add_argument("--keep", type=Path, default=Path(".bench-campaign"))
    given = parser.parse_args()
    keep = given.keep.resolve()
    prepare(given.data.resolve(), keep / "data")
    os.environ["OMP_NUM_THREADS"] = "1"
    known, end = accuracies(), time.monotonic() + 60 * given.minutes
    only = set(filter(None, given.only.split(",")))
    for program in [p for p in candidates() if not only or p.name in only][: given.limit]:
        if program.name in {r["name"] for r in read_rows(ROWS)}:
            continue
        if time.monotonic() > end:
            print("time is up")
            break
        row = asyncio.run(taken_through(program, keep, given.budget)) | {"twin": known[digest(program.base.name)]}
        with ROWS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)
    write_table(read_rows(ROWS))


if __name__ == "__main__":
    main()
