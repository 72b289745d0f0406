"""What is warned of while programs run: of healthy ones nothing, of faulty ones what the end tells; writes results/live.md.

    python benchmarks/live.py [--healthy 240] [--keep FOLDER] [--campaign DATA] [--minutes 9]

Programs are those of short_programs.py and, with --campaign, of the campaign (docs/campaign.md). Each is recorded once; the
record is cut after its first batches and after each of its passes, and judged there as ``valgap run --live`` judges it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from short_programs import run as run_program
from short_runs import ALLOWED, faulty, healthy, prepare

from valgap import watch
from valgap.diagnosis import diagnose, suspected
from valgap.errors import NothingRecordedError
from valgap.live.judging import warnings_of
from valgap.seams.hosting.session import FIRST_BATCHES, Session

RESULTS = Path(__file__).parent / "results" / "live.md"
HEAD = """# Warnings while programs run

Made by `make bench-live DATA=FOLDER`: records cut after their first batches and after each pass, judged as `valgap run --live`
judges them. *short*: the programs of `short_runs.py`, a few steps each; not counted is EVA507 (the validation set itself is that
small). *campaign*: generated programs of the calibration half. *suspected at the end*: by the record alone, without measurements
on the finished model and without the image files. Schedules (TRN414) rest on a whole training and are never warned of. Two false
positives of checks (MOD301, STG606) were mended while looking at these programs.

"""


def main() -> None:
    """Record, cut, judge, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--healthy", type=int, default=240)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--campaign", type=Path, help="the folder with the data sets")
    parser.add_argument("--limit", type=int, default=40, help="of the campaign's faulty programs; half as many healthy ones")
    parser.add_argument("--minutes", type=float, default=9.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    # As with --live, but for the process that judges.
    Session._watch_live = lambda self, recorder: setattr(recorder, "early", FIRST_BATCHES)  # type: ignore[method-assign]
    until = time.monotonic() + 60 * args.minutes
    with tempfile.TemporaryDirectory() as scratch:
        keep = args.keep or Path(scratch)
        keep.mkdir(parents=True, exist_ok=True)
        rows = keep / "rows.jsonl"
        done = {json.loads(line)["name"] for line in rows.read_text().splitlines()} if rows.is_file() else set()
        for name, record in jobs(args, keep, done):
            if time.monotonic() > until:
                print("time is up: call it again")
                return
            row = {"name": name, **replayed(record())}
            with rows.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(name, row["told"], row["at_end"], flush=True)
        report([json.loads(line) for line in rows.read_text().splitlines()])


def jobs(args: argparse.Namespace, keep: Path, done: set[str]) -> Iterator[tuple[str, Any]]:
    """(name, what records it and returns the run directory) of each program that has no row yet."""
    short = [
        *((f"healthy {i}", healthy(i)) for i in range(args.healthy)),
        *((f"faulty {p.kind} {p.fault}", p) for p, _ in faulty()),
    ]
    for name, program in short:
        if name not in done:
            yield name, lambda program=program: of_short(program, keep / "record")
    if args.campaign is not None:
        from live_campaign import programs_of

        yield from ((name, record) for name, record in programs_of(args.campaign, keep, args.limit) if name not in done)


def of_short(program: Any, out: Path) -> Path:
    """The record of a short program."""
    shutil.rmtree(out, ignore_errors=True)
    prepare(program)
    with watch(out, closing=0):
        run_program(program)
    return out


def replayed(run: Path) -> dict[str, Any]:
    """What is told of a record cut at each moment of judging, and what of the whole."""
    lines = (run / "events.jsonl").read_bytes().splitlines(keepends=True)
    kinds = [json.loads(line)["t"] for line in lines]
    told: list[list[Any]] = []
    passes, first = 0, True
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        for i, kind in enumerate(kinds):
            passes += kind == "pass_end"
            if not (kind == "pass_end" or (kind == "part" and first)):
                continue
            first = False
            # What is written at the end of a pass belongs to it.
            stop = next(
                (k for k in range(i + 1, len(kinds)) if kinds[k] in ("pass_begin", "part", "pass_end", "end")), len(kinds)
            )
            (out / "events.jsonl").write_bytes(b"".join(lines[:stop]))
            told += [[w.code, w.stage, w.confidence, passes, w.what] for w in warnings_of(out, [t[0] for t in told])]
    try:
        end = [[j.check.code, j.check.stage] for j in suspected(diagnose(run, images=0, rebuild=False))]
    except NothingRecordedError:
        end = []
    return {"told": told, "at_end": end, "passes": passes}


def report(rows: list[dict[str, Any]]) -> None:
    """Print what was told of healthy programs, and what was not of faulty ones, and write the page."""
    table = [
        "| programs | healthy | warned of | faulty | warned of in the first epoch | suspected at the end | same stage warned of |"
    ]
    table.append("|---|---|---|---|---|---|---|")
    for name, of in (("short", [r for r in rows if " campaign " not in r["name"]]), ("campaign", rows_of_campaign(rows))):
        sound, spoilt = ([r for r in of if r["name"].startswith(sort)] for sort in ("healthy", "faulty"))
        alarms = [(r["name"], t) for r in sound for t in r["told"] if t[0] not in ALLOWED]
        ended = [r for r in spoilt if r["at_end"]]
        same = [r for r in ended if {t[1] for t in r["told"]} & {stage for _, stage in r["at_end"]}]
        early = [r for r in spoilt if any(t[3] <= 2 for t in r["told"])]
        counts = (len(sound), len({n for n, _ in alarms}), len(spoilt), len(early), len(ended), len(same))
        table.append(f"| {name} | " + " | ".join(map(str, counts)) + " |")
        for alarm in alarms:
            print("ALARM", *alarm)
        for row in ended:
            if row not in same:
                print("NOT AS THE END", row["name"], row["told"], row["at_end"])
    print("\n".join(table))
    RESULTS.write_text(HEAD + "\n".join(table) + "\n")


def rows_of_campaign(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of generated programs."""
    return [r for r in rows if " campaign " in r["name"]]


if __name__ == "__main__":
    main()
