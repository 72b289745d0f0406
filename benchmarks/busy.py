"""What `valgap train` takes beside busy programs: the clock's time and the processor's, with threads that sleep or spin.

python benchmarks/busy.py DATA [--set hymenoptera_256] [--size 96] [--busy 0 3] [--repeats 1]

The busy programs count in a loop, one process each. `spinning` is OpenMP's own way on Linux (OMP_WAIT_POLICY unset), which
cannot be asked for by a value: the command sets PASSIVE where nothing is set. It is had here by a start that unsets it again.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "benchmarks" / "results" / "busy.md"
# The command as it is; and as it was, before it said how threads wait.
STARTS = {
    "sleeping": "from valgap.cli import main; main()",
    "spinning": "import valgap.cli.models as m; m.yield_while_waiting = lambda: None; from valgap.cli import main; main()",
}


def main() -> None:
    """Run what is asked for, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--set", default="hymenoptera_256")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--busy", type=int, nargs="+", default=(0, 3))
    parser.add_argument("--repeats", type=int, default=1)
    args = parser.parse_args()
    lines = [
        "# Beside busy programs",
        "",
        f"`make bench-busy DATA=FOLDER`: `valgap train {args.set}` with EfficientNet-Lite0 at {args.size} px, two epochs of the",
        f"last two stages, {os.cpu_count()} cores; the best of {args.repeats}. Other work on the machine when it began: load "
        f"{os.getloadavg()[0]:.1f}.",
        "",
        "| busy programs | threads that wait | seconds | processor seconds |",
        "|---|---|---|---|",
    ]
    for busy in args.busy:
        for how, start in STARTS.items():
            wall, worked = min(taken(args.data / args.set, args.size, busy, start) for _ in range(args.repeats))
            lines.append(f"| {busy} | {how} | {wall:.0f} | {worked:.0f} |")
            print(lines[-1], flush=True)
            TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def taken(data: Path, size: int, busy: int, start: str) -> tuple[float, float]:
    """(seconds, processor seconds) of one training beside so many loops."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    try:
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "run"
            given = ["--backbone", "efficientnet_lite0", "--size", str(size), "--unfreeze", "last2", "--epochs", "2"]
            command = [sys.executable, "-c", start, "train", str(data), *given, "--out", str(out)]
            environment = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")}
            environment |= {"VALGAP_CACHE": str(Path(scratch) / "cache"), "PYTHONPATH": str(ROOT / "src")}
            before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            subprocess.run(command, env=environment, check=True, capture_output=True)
            wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    finally:
        for loop in loops:
            loop.kill()
    # Of the loops, which are waited for only now, nothing is counted.
    worked = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    for loop in loops:
        loop.wait()
    return wall, worked


if __name__ == "__main__":
    main()
