"""Whole-process time of the reference script recorded, and watched live, against bare: in turn, on the same data.

Usage: python benchmarks/overhead.py [DATA] [--rounds 5] [--epochs 2] [--size 160]
Writes benchmarks/results/overhead.md.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
RUN = ["-m", "valgap.cli", "run", "--closing", "0"]
ARMS: dict[str, list[str]] = {"bare": [], "recorded": RUN, "live": [*RUN, "--live"]}
POLL_S = 0.2
SCRIPT = ROOT / "examples" / "reference_resnet50.py"


class Took(NamedTuple):
    """Seconds of a whole process: by the clock, of the processor, and of the processor in the process that judges beside it."""

    wall: float
    processor: float
    judging: float


def took(command: list[str]) -> Took:
    """Run a command and measure it. On a busy machine its processor time says more than the clock."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    judging = 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            judging = max(judging, _judging_s(process.pid))
            time.sleep(POLL_S)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert process.returncode == 0, command
    return Took(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, judging)


def _judging_s(pid: int) -> float:
    """Processor seconds of the process that judges the record of process ``pid``; 0 where there is none."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (place / "cmdline").read_bytes().split(b"\0")
            if any(b"valgap.live.follower" in a for a in arguments) and str(pid).encode() in arguments:
                user, system = (place / "stat").read_text().rpartition(")")[2].split()[11:13]
                return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
        except OSError:
            continue
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", default="2")
    parser.add_argument("--size", default="224")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        data = options.data
        if data is None:
            from valgap.demo_data import make_demo_data

            data = str(make_demo_data(Path(scratch) / "data"))
        arguments = [str(SCRIPT), data, "--backbone", "efficientnet_lite0"]
        arguments += ["--epochs", options.epochs, "--size", options.size]
        times: dict[str, list[Took]] = {name: [] for name in ARMS}
        for turn in range(options.rounds):
            # Each arm comes first, second and last in turn.
            for name in [*ARMS][turn % len(ARMS) :] + [*ARMS][: turn % len(ARMS)]:
                ours = [*ARMS[name], "--out", f"{scratch}/{turn}-{name}"] if ARMS[name] else []
                times[name].append(took([sys.executable, *ours, *arguments]))
            print(f"round {turn}: " + ", ".join(f"{name} {of[-1]}" for name, of in times.items()), flush=True)
    lines = []
    for name, against in (("recorded", "bare"), ("live", "bare"), ("live", "recorded")):
        of = list(zip(times[name], times[against], strict=True))
        wall = [own.wall / bare.wall for own, bare in of]
        processor = [(own.processor + own.judging) / bare.processor for own, bare in of]
        lines.append(f"| {name} / {against} | {spread(processor)} | {spread(wall)} |")
    judged = f"The judging process took {statistics.median(t.judging for t in times['live']):.1f} s of the processor."
    print("\n".join(lines), judged, sep="\n")
    result = ROOT / "benchmarks" / "results" / "overhead.md"
    result.parent.mkdir(exist_ok=True)
    result.write_text(
        "# Overhead of the recorder\n\nWhole processes, closing measurements off, findings printed; *live*: with `--live`, "
        "whose judging process runs beside it\n(its processor time is counted). Reference script, "
        f"{options.epochs} epochs, {options.size} px, {statistics.median(t.wall for t in times['bare']):.0f} s bare; "
        f"median (min .. max) of {options.rounds} rounds.\n\n| | processor time | clock |\n|---|---|---|\n"
        + "\n".join([*lines, "", judged])
        + "\n\nCommand: `make bench`.\n"
    )


def spread(ratios: list[float]) -> str:
    """Median, least and most."""
    return f"{statistics.median(ratios):.4f} ({min(ratios):.4f} .. {max(ratios):.4f})"


if __name__ == "__main__":
    main()
