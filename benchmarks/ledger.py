"""The ledger against the truth: planted causes, alone and in pairs, and their hand-made sound twins.

python benchmarks/ledger.py ../shared/data/clothing_mini ../shared/data/sign_digits_mini ../shared/data/cifar10n_mini
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from valgap import diagnose
from valgap.experiments.arm import ArmSpec
from valgap.experiments.plan import SEEDS
from valgap.experiments.runner import Runner
from valgap.stats import shapley_values

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks" / "planted.py"
RESULT = ROOT / "benchmarks" / "results" / "ledger.md"
CODES = {
    "train_mode": "EVA501",
    "unnormalized": "PRE201",
    "shifted": "DAT102",
    "leaked": "DAT101",
    "drift": "MOD302",
    "bgr": "PRE203",
    "range255": "PRE202",
    "random_val": "PRE204",
    "big_val": "PRE205",
    "softmax": "MOD306",
    "no_zero_grad": "TRN407",
    "unshuffled": "TRN408",
}
# Which faults on which data set: every fault and every pair once; what the 100 validation images of the second set are too
# few to judge stands there and once more on the third, which has 500.
SINGLES = (
    ("shifted", "drift", "softmax", "unnormalized", "leaked", "no_zero_grad"),
    ("train_mode", "bgr", "range255", "random_val", "big_val", "unshuffled"),
    ("bgr", "unshuffled"),
)
PAIRS = (
    (("drift", "unnormalized"), ("softmax", "shifted"), ("drift", "bgr")),
    (("unnormalized", "shifted"), ("drift", "softmax"), ("random_val", "drift")),
    (("drift", "bgr"),),
)


def argv(data: str, faults: frozenset[str]) -> list[str]:
    """The call of the planted script."""
    return [str(SCRIPT), str(Path(data).resolve()), "--faults", ",".join(sorted(faults))]


def truth(data: str, faults: frozenset[str], folder: Path) -> dict[str, float]:
    """Points that each fault costs, from twins of the script without it; Shapley values where there are several."""
    runner = Runner(folder, max(1, (os.cpu_count() or 1) // 2 * 2), time.monotonic() + 36_000)
    known: dict[frozenset[str], float] = {}

    def value(mended: frozenset[str]) -> float:
        if mended not in known:
            given = argv(data, faults - mended)
            arms = runner.run([ArmSpec(given[0], None, given, str(ROOT), s, 0, 1.0, [0], [1]) for s in range(SEEDS)])
            assert all(a.error is None for a in arms), [a.error for a in arms]
            known[mended] = 100 * float(np.mean([a.accuracy for a in arms]))
        return known[mended]

    return shapley_values(sorted(faults), value)


def one(data: str, faults: frozenset[str], budget: str, twins: Path) -> list[str]:
    """Table rows of one experiment; ``twins`` is where all experiments share the hand-made programs' results."""
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        command = [sys.executable, "-m", "valgap.cli", "run", "--out", str(run), *argv(data, faults)]
        subprocess.run(command, check=True, capture_output=True)
        begun = time.monotonic()
        diagnosis = diagnose(run, budget=budget)
        seconds = time.monotonic() - begun
        real = truth(data, faults, twins)
        lines = {line.name: line for line in diagnosis.ledger}
        rows = []
        others = [
            j.check.code
            for j in diagnosis.findings
            if j.verdict == "confirmed" and j.check.code not in {CODES[f] for f in faults}
        ]
        for fault in sorted(faults):
            judged = next((j for j in diagnosis.judged if j.check.code == CODES[fault]), None)
            assert judged is not None
            line = lines.get(judged.check.name)
            points = line.points if line is not None else judged.effect.value if judged.effect is not None else 0.0
            off = points - real[fault]
            figures = (f"{points:+.1f}", f"{real[fault]:+.1f}", f"{off:+.1f}", "" if abs(off) <= 5 else "OFF")
            reason = "" if judged.verdict == "confirmed" else judged.reason[:90]
            cells = (Path(data).name, "+".join(sorted(faults)), judged.check.name, judged.verdict, *figures)
            rows.append("| " + " | ".join((*cells, ", ".join(others) or "-", f"{seconds:.0f}", reason)) + " |")
        return rows


def main() -> None:
    """Print the table and write it to results/ledger.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs=3)
    parser.add_argument("--budget", default="10m")
    parser.add_argument("--resume", action="store_true", help="leave out what stands in the table already")
    args = parser.parse_args()
    head = (
        "| data | planted | line | verdict | ledger | truth | off by | > 5 | also confirmed | seconds | reason |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|"
    )
    known = {}
    for line in RESULT.read_text().splitlines() if args.resume and RESULT.is_file() else []:
        known.setdefault(tuple(line.strip("| ").split(" | ")[:2]), []).append(line)
    rows: list[str] = []
    print(head)
    with tempfile.TemporaryDirectory() as twins:
        for data, singles, pairs in zip(args.data, SINGLES, PAIRS, strict=True):
            for faults in (*(frozenset([s]) for s in singles), *(frozenset(p) for p in pairs)):
                found = known.get((Path(data).name, "+".join(sorted(faults))))
                rows += found or one(data, faults, args.budget, Path(twins))
                print("\n".join(rows[-len(faults) :]), flush=True)
                text = "\n".join(rows)
                RESULT.write_text(
                    f'# The ledger against hand-made twins\n\n{head}\n{text}\n\nCommand: `make bench-ledger DATA="A B C"`.\n'
                )


if __name__ == "__main__":
    main()
