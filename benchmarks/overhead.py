"""Whole-process time of the reference script recorded against bare: paired, in turn, on the same data.

Usage: python benchmarks/overhead.py [DATA] [--pairs 5] [--epochs 2] [--size 160]
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
SCRIPT = ROOT / "examples" / "reference_resnet50.py"


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?")
    parser.add_argument("--pairs", type=int, default=3)
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
        bare = [sys.executable, *arguments]
        ratios = []
        for pair in range(options.pairs):
            recorded = [sys.executable, "-m", "valgap.cli", "run", "--closing", "0", "--out", f"{scratch}/{pair}"]
            first, second = (bare, [*recorded, *arguments])[:: 1 if pair % 2 == 0 else -1]
            times = seconds(first), seconds(second)
            own, plain = (times[1], times[0]) if pair % 2 == 0 else times
            ratios.append(own / plain)
            print(f"pair {pair}: bare {plain:.2f} s, recorded {own:.2f} s, ratio {own / plain:.4f}", flush=True)
    line = f"median {statistics.median(ratios):.4f}, min {min(ratios):.4f}, max {max(ratios):.4f} of {len(ratios)} pairs"
    print(line)
    result = ROOT / "benchmarks" / "results" / "overhead.md"
    result.parent.mkdir(exist_ok=True)
    result.write_text(
        "# Overhead of the recorder\n\nWhole process, recorded (closing off, findings printed) / bare, "
        f"reference script, {options.epochs} epochs, {options.size} px: {line}.\n\n"
        "Command: `make bench`.\n"
    )


if __name__ == "__main__":
    main()
