"""Whole-process time of the reference script recorded, and watched live, against bare: in turn, on the same data.

Usage: python benchmarks/overhead.py [DATA] [--rounds 5] [--epochs 2] [--size 160]
Writes benchmarks/results/overhead.md.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUN = ["-m", "valgap.cli", "run", "--closing", "0"]
ARMS: dict[str, list[str]] = {"bare": [], "recorded": RUN, "live": [*RUN, "--live"]}
SCRIPT = ROOT / "examples" / "reference_resnet50.py"


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


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
        times: dict[str, list[float]] = {name: [] for name in ARMS}
        for turn in range(options.rounds):
            # Each arm comes first, second and last in turn.
            for name in [*ARMS][turn % len(ARMS) :] + [*ARMS][: turn % len(ARMS)]:
                ours = [*ARMS[name], "--out", f"{scratch}/{turn}-{name}"] if ARMS[name] else []
                times[name].append(seconds([sys.executable, *ours, *arguments]))
            print(f"round {turn}: " + ", ".join(f"{name} {of[-1]:.2f} s" for name, of in times.items()), flush=True)
    lines = []
    for name in ("recorded", "live"):
        ratios = [own / bare for own, bare in zip(times[name], times["bare"], strict=True)]
        spread = f"min {min(ratios):.4f}, max {max(ratios):.4f} of {len(ratios)} rounds"
        lines.append(f"| {name} | {statistics.median(ratios):.4f} | {spread} |")
    print("\n".join(lines))
    result = ROOT / "benchmarks" / "results" / "overhead.md"
    result.parent.mkdir(exist_ok=True)
    result.write_text(
        "# Overhead of the recorder\n\nWhole process / bare, closing measurements off, findings printed; *live*: with `--live`, "
        f"whose judging process runs beside it.\nReference script, {options.epochs} epochs, {options.size} px, "
        f"{statistics.median(times['bare']):.0f} s bare.\n\n| | median | |\n|---|---|---|\n"
        + "\n".join(lines)
        + "\n\nCommand: `make bench`.\n"
    )


if __name__ == "__main__":
    main()
