"""The reference script and a healthy one: verdicts, the hand-made twin's effect, and what the diagnosis costs.

python benchmarks/proof.py ../shared/data/clothing_mini
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from valgap import diagnose
from valgap.experiments.arm import ArmSpec
from valgap.experiments.plan import SEEDS
from valgap.experiments.runner import Runner
from valgap.record.reader import read_record
from valgap.types import Diagnosis, Finding

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "examples" / "reference_resnet50.py"
HEALTHY = ROOT / "examples" / "faults" / "healthy.py"
RESULT = ROOT / "benchmarks" / "results" / "proof.md"
SUSPECTED = 0.5
HEAD = (
    "| program | script, s | budget, s | diagnosis, s | line | verdict | effect | hand-made twin | other verdicts |\n"
    + "|---" * 9
    + "|"
)


@dataclass(frozen=True)
class Program:
    """A program and how it is called; ``expected`` is the planted cause, "" for none."""

    title: str
    script: Path
    args: tuple[str, ...]
    expected: str
    budget_s: float  # 0: as long as the script itself took
    twin: bool


def programs(data: str) -> list[Program]:
    """What is measured."""
    given = (str(Path(data).resolve()), "--backbone", "efficientnet_lite0")
    return [
        Program("reference, 8 epochs", REFERENCE, (*given, "--epochs", "8"), "batchnorm_drift", 600.0, True),
        Program("healthy, 4 epochs at 128 px", HEALTHY, (*given, "--epochs", "4", "--size", "128"), "", 600.0, False),
        Program("reference, 20 epochs at 64 px", REFERENCE, (*given, "--size", "64"), "batchnorm_drift", 0.0, False),
    ]


def held(script: Path, folder: Path) -> Path:
    """The script with BatchNorm of its frozen part in eval mode, as one would mend it by hand."""
    text = script.read_text()
    assert text.count("    model.train()\n") == 1
    twin = folder / script.name
    twin.write_text(text.replace("    model.train()\n", "    model.eval()\n    head.train()\n"))
    return twin


def accuracies(script: Path, args: Sequence[str], folder: Path) -> list[float]:
    """Last validation accuracy in percent, one per seed; nothing is changed but the seed."""
    runner = Runner(folder, max(1, (os.cpu_count() or 1) // 2 * 2), time.monotonic() + 36_000)
    argv = [str(script), *args]
    arms = runner.run([ArmSpec(argv[0], None, argv, str(ROOT), s, 0, 1.0, [0], [1]) for s in range(SEEDS)])
    assert all(a.error is None for a in arms), [a.error for a in arms]
    return [100 * a.accuracy for a in arms]


def row(program: Program, diagnosis: Diagnosis, script_s: float, budget_s: float, seconds: float, twin: float | None) -> str:
    """The table's row of one program."""
    tried = [j for j in diagnosis.findings if isinstance(j.outcome, Finding) and j.outcome.confidence >= SUSPECTED]
    main = next((j for j in tried if j.check.name == program.expected), None)
    others = ", ".join(f"{j.check.name} {j.verdict}" for j in tried if j is not main) or "-"
    effect = main.effect if main is not None else None
    measured = f"{effect.value:+.1f} ({effect.low:+.1f} .. {effect.high:+.1f})" if effect is not None else "-"
    verdict = main.verdict if main is not None else "not suspected" if program.expected else "-"
    times = (f"{script_s:.0f}", f"{budget_s:.0f}", f"{seconds:.0f}")
    cells = (
        program.title,
        *times,
        program.expected or "-",
        verdict,
        measured,
        f"{twin:+.1f}" if twin is not None else "",
        others,
    )
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table and write it to results/proof.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--keep", type=Path, help="folder for runs and arms, used again by a later call")
    parser.add_argument("--resume", action="store_true", help="leave out what stands in the table already")
    args = parser.parse_args()
    told = RESULT.read_text().splitlines() if args.resume and RESULT.is_file() else []
    print(HEAD)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        place = args.keep or Path(scratch)
        for number, program in enumerate(programs(args.data)):
            old = [line for line in told if line.startswith(f"| {program.title} |")]
            if old:
                rows += old
                continue
            run = place / f"run{number}"
            command = [sys.executable, "-m", "valgap.cli", "run", "--out", str(run), str(program.script), *program.args]
            if not run.is_dir():
                subprocess.run(command, check=True, capture_output=True)
            script_s = read_record(run).seconds
            shutil.rmtree(run / "experiments", ignore_errors=True)  # what a diagnosis costs is measured from nothing
            begun = time.monotonic()
            diagnosis = diagnose(run, budget=program.budget_s or script_s)
            seconds = time.monotonic() - begun
            twin = None
            if program.twin:
                mended = held(program.script, place)
                arms = place / "arms"
                after, before = (np.mean(accuracies(s, program.args, arms)) for s in (mended, program.script))
                twin = float(after - before)
            rows.append(row(program, diagnosis, script_s, program.budget_s or script_s, seconds, twin))
            print(rows[-1], flush=True)
            text = "\n".join(rows)
            RESULT.write_text(
                f"# The reference script and a healthy one\n\n{HEAD}\n{text}\n\nCommand: `make bench-proof DATA=FOLDER`.\n"
            )


if __name__ == "__main__":
    main()
