"""Arms per minute on the reference script: forked at its first loader, and each begun anew.

python benchmarks/proof_arms.py DATA [--arms 6] [--epochs 1] [--size 64]
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from valgap.experiments.arm import ArmSpec
from valgap.experiments.runner import ArmResult, Runner

SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "reference_resnet50.py"


def measured(specs: list[ArmSpec], warm: bool, parallel: int) -> tuple[list[ArmResult], float, float, str]:
    """(the arms, seconds until the last has ended, seconds of the start that all share, why they were not forked)."""
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(Path(folder), parallel, time.monotonic() + 3600, warm=warm)
        begun = time.monotonic()
        runner.wait_at_loaders(specs if warm else [])
        shared = time.monotonic() - begun
        results = runner.run(specs)
        seconds = time.monotonic() - begun
        runner.close()
    return results, seconds, shared, "; ".join(runner.cold)


def main() -> None:
    """Print both, their ratio, and whether their answers are the same."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--arms", type=int, default=6)
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--size", type=int, default=64)
    args = parser.parse_args()
    data = str(Path(args.data).resolve())
    argv = [str(SCRIPT), data, "--backbone", "efficientnet_lite0", "--epochs", str(args.epochs), "--size", str(args.size)]
    specs = [ArmSpec(argv[0], None, argv, str(Path.cwd()), s, 0, 1.0, [0], [1]) for s in range(args.arms)]
    found = {}
    for name, warm in (("forked", True), ("begun anew", False)):
        results, seconds, shared, reason = measured(specs, warm, args.parallel)
        assert all(r.error is None for r in results), [r.error for r in results]
        found[name] = (60 * len(specs) / seconds, results)
        later = 60 * len(specs) / (seconds - shared)
        took = f"{seconds:.0f} s, {shared:.0f} s of them shared"
        print(f"{name}: {len(specs)} arms in {took}: {found[name][0]:.1f} a minute {reason}")
        print(f"    then {later:.1f} a minute", flush=True)
    print(f"ratio {found['forked'][0] / found['begun anew'][0]:.2f}")
    same = [
        np.array_equal(a.samples.loss, b.samples.loss)
        for a, b in zip(found["forked"][1], found["begun anew"][1], strict=True)
        if a.samples is not None and b.samples is not None
    ]
    print(f"the same losses, bit by bit: {sum(same)} of {len(same)}")


if __name__ == "__main__":
    main()
