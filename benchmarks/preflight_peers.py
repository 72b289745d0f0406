"""What torch-preflight, mldoct and preflight-ml say of the programs of preflight.py; writes results/preflight_peers.md.

python benchmarks/preflight_peers.py FOLDER_WITH_THE_DATA_SETS --python PEERS_PYTHON [--cases CASES] [--minutes 9]

The programs are those with a row in results/preflight.jsonl, the held-out half left out; PEERS_PYTHON the Python in whose
environment the tools are installed (``make bench-preflight-peers`` makes one). The first two read the source. preflight-ml is
handed what the program made until its first backward pass (peers/handed_over.py). A row goes to
results/preflight_peers.jsonl at once: what is there is not asked again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import preflight
from campaign.data import prepare
from campaign.harness import arguments, write
from campaign.plan import programs
from campaign.report import share

HERE = Path(__file__).resolve().parent
ROWS, TABLE = HERE / "results" / "preflight_peers.jsonl", HERE / "results" / "preflight_peers.md"
# The stages at which what an alarm says by its own text may be at fault. None: memory, speed, style, or the check itself.
MEANING = {
    "TG003": ("update",), "TG005": ("loss",), "TG006": ("loss",), "TG011": ("forward", "update"), "TG012": ("draw",),
    "TG014": ("loss", "update"), "missing_zero_grad": ("update",), "missing_eval": ("forward",), "double_softmax": ("loss",),
    "nan_inf_detection": ("read_train", "read_val", "files"), "normalisation_sanity": ("read_train", "read_val"),
    "channel_ordering": ("read_train", "read_val"), "label_leakage": ("files",), "class_imbalance": ("files", "draw"),
    "shape_mismatch": ("forward",), "gradient_check": ("forward", "loss", "update"), "split_sizes": ("files",),
}  # fmt: skip
TOOLS = ("torch-preflight", "mldoct", "preflight-ml")
LINT = """import json, sys
from mldoctor.linter import lint_script
print(json.dumps([f["type"] for f in lint_script(sys.argv[1])[0]]))"""
HEAD = """# Preflight beside its peers

Made by `make bench-preflight-peers DATA=FOLDER`: the programs of [preflight.md](preflight.md), each asked of torch-preflight
0.5.0 and mldoct 1.0.0, which read its source, and of preflight-ml 0.1.1, which is handed the loaders, the model and a cross
entropy that the running program has made by its first backward pass. *names the stage*: one of its alarms, by `MEANING` in
benchmarks/preflight_peers.py, belongs to the stage of the fault (valgap: the first that it tells). `MEANING` was written from the
tools' own texts before any answer was seen. *another*: alarms that mean a stage, and none the right one. Alarms of memory, speed
and style (unseeded runs, no workers, no clipping) count neither way. Their rules know slips of source code and spoilt tensors;
most faults of the campaign, which were planted without a look at these tools, are neither.
"""


def main() -> None:
    """Ask about what has no row yet until the time is up, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--python", type=Path, required=True)
    parser.add_argument("--cases", type=Path)
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--keep", type=Path, default=Path(".bench-preflight"))
    given = parser.parse_args()
    keep, end = given.keep.resolve(), time.monotonic() + 60 * given.minutes
    prepare(given.data.resolve(), keep / "data")
    ours = {name: row for name, row in preflight.rows().items() if row["of"] != "heldout"}
    done = {r["name"] for r in rows()}
    missing = [job for job in jobs(given.cases, keep, set(ours)) if job[0] not in done]
    for name, job in missing:
        if time.monotonic() > end:
            print("time is up")
            break
        where = Path(tempfile.mkdtemp())
        try:
            command = (
                job if isinstance(job, list) else arguments(job, write(job.draft, where / "program", job.base.seed, False), keep)
            )
            row = {"name": name, **asked([str(c) for c in command], given.python, where)}
        finally:
            shutil.rmtree(where)
        with ROWS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)
    TABLE.write_text(table(rows(), ours))


def rows() -> list[dict[str, Any]]:
    """All rows so far."""
    return [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []


def jobs(folder: Path | None, keep: Path, names: set[str]) -> list[tuple[str, Any]]:
    """(name, its command or its program) of each that preflight has a row of."""
    reports = preflight.cases(folder, keep) if folder is not None else ()
    named = [(case["name"], case["command"]) for case in reports]
    return [job for job in [*named, *((p.name, p) for p in programs())] if job[0] in names]


def asked(command: list[str], python: Path, where: Path) -> dict[str, Any]:
    """Each tool's alarms of one program, by the tool's names; None where it could not be asked."""

    def run(*call: str) -> Any:
        try:
            done = subprocess.run(call, cwd=where, capture_output=True, text=True, timeout=120)
            return json.loads(done.stdout)
        except (subprocess.TimeoutExpired, json.JSONDecodeError):
            return None

    linted = run(str(python.parent / "torch-preflight"), "check", "--format", "json", command[0])
    handed = run(str(python), str(HERE / "peers" / "handed_over.py"), *command) or {}
    return {
        "torch-preflight": [d["code"] for d in linted["diagnostics"]] if linted is not None else None,
        "mldoct": run(str(python), "-c", LINT, command[0]),
        "preflight-ml": [t["name"] for t in handed["told"]] if "told" in handed else None,
        "unasked": handed.get("unasked", ""),
    }


def meant(alarms: list[str] | None) -> set[str]:
    """The stages that alarms speak of."""
    return {stage for alarm in alarms or () for stage in MEANING.get(alarm, ())}


def table(of: list[dict[str, Any]], ours: dict[str, dict[str, Any]]) -> str:
    """The report."""
    faulty = [r for r in of if ours[r["name"]]["stages"]]
    sound = [r for r in of if not ours[r["name"]]["stages"]]
    lines = [
        HEAD,
        "| tool | names the stage | another | nothing | could not be asked | healthy, with an alarm |",
        "|---|---|---|---|---|---|",
    ]
    told = [ours[r["name"]] for r in faulty]
    said = [bool(r["findings"] or r["stages_told"]) for r in told]
    right = [preflight.right(r) for r in told]
    wrong = [bool(ours[r["name"]]["findings"] or ours[r["name"]]["stages_told"]) for r in sound]
    other = sum(s and not r for s, r in zip(said, right, strict=True))
    lines.append(f"| valgap | {share(right)} | {other} | {said.count(False)} | 0 | {share(wrong)} |")
    for tool in TOOLS:
        stages = [meant(r[tool]) for r in faulty]
        right = [bool(s & set(ours[r["name"]]["stages"])) for s, r in zip(stages, faulty, strict=True)]
        other = sum(bool(s) and not r for s, r in zip(stages, right, strict=True))
        unasked = sum(r[tool] is None for r in of)
        quiet = sum(not s and r[tool] is not None for s, r in zip(stages, faulty, strict=True))
        lines.append(
            f"| {tool} | {share(right)} | {other} | {quiet} | {unasked} | {share([bool(meant(r[tool])) for r in sound])} |"
        )
    lines += ["", "| program | fault | valgap | " + " | ".join(TOOLS) + " |", "|---|---|---|---|---|---|"]
    for row in of:
        own = ours[row["name"]]
        fault = f"{' '.join(own['kinds'])} ({'/'.join(own['stages'])})" if own["stages"] else " ".join(own["kinds"]) or "healthy"
        first = ", ".join(f["code"] for f in own["findings"]) or ", ".join(own["stages_told"]) or "nothing"
        cells = ["not asked" if row[t] is None else ", ".join(sorted(set(row[t]))) or "nothing" for t in TOOLS]
        lines.append(f"| {row['name']} | {fault} | {first} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
