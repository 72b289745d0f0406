"""What steps of a training take beside busy programs: by the clock and of the processor, with threads that sleep or spin.

python benchmarks/busy.py [--busy 3] [--steps 12] [--repeats 2]

The busy programs count in a loop, one process each. Threads that wait for each other spin at first where OMP_WAIT_POLICY is not
set, as in the scripts that people write; `valgap train` sets PASSIVE.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

TABLE = Path(__file__).resolve().parent / "results" / "busy.md"
# Batches of 16 random images of 96 px through all of EfficientNet-Lite0, forward and back; the first step is not counted.
PROGRAM = """
import sys, time, torch, timm
model = timm.create_model("tf_efficientnet_lite0", num_classes=10).eval()
images, labels = torch.randn(16, 3, 96, 96), torch.arange(16) % 10
def step():
    model.zero_grad()
    torch.nn.functional.cross_entropy(model(images), labels).backward()
step()
clock, work = time.perf_counter(), time.process_time()
for _ in range(int(sys.argv[1])):
    step()
print(time.perf_counter() - clock, time.process_time() - work)
"""


def main() -> None:
    """Run what is asked for, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--busy", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    lines = [
        "# Beside busy programs",
        "",
        f"`make bench-busy`: {args.steps} steps of EfficientNet-Lite0 at 96 px, forward and back, in {os.cpu_count()} threads",
        f"on as many cores, beside {args.busy} programs that count in a loop. The load of other work on the machine when it",
        f"began was {os.getloadavg()[0]:.1f}. The fastest of {args.repeats}.",
        "",
        "| threads that wait | seconds | processor seconds |",
        "|---|---|---|",
    ]
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(args.busy)]
    try:
        for how, policy in (("sleep (OMP_WAIT_POLICY=PASSIVE)", "PASSIVE"), ("spin (not set)", None)):
            wall, work = min(taken(args.steps, policy) for _ in range(args.repeats))
            lines.append(f"| {how} | {wall:.1f} | {work:.1f} |")
            print(lines[-1], flush=True)
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def taken(steps: int, policy: str | None) -> tuple[float, float]:
    """(seconds, processor seconds) of so many steps."""
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")}
    environment |= {"OMP_WAIT_POLICY": policy} if policy is not None else {}
    command = [sys.executable, "-c", PROGRAM, str(steps)]
    wall, work = map(float, subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.split())
    return wall, work


if __name__ == "__main__":
    main()
