"""How often an experiment without any change is "confirmed": A/A experiments on real images.

Two forms. Same seeds in both arms: what `valgap diagnose` does; the intervention `nothing` must change no answer. Other
seeds in both arms: the harder form, in which all the noise of training is between the arms.

    python benchmarks/false_alarms.py ../shared/data/clothing_mini [OTHER DATA...] --experiments 60
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from valgap.experiments.arm import ArmSpec
from valgap.experiments.plan import SEEDS
from valgap.experiments.runner import Runner
from valgap.experiments.verdicts import compared, judge_effect, measure
from valgap.types import Intervention

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "examples" / "reference_resnet50.py"


def main() -> None:
    """Print the share of confirmed A/A experiments and write it to results/false_alarms.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--experiments", type=int, default=60)
    parser.add_argument("--pool", type=int, default=24, help="seeds per data set from which both arms are drawn")
    parser.add_argument("--size", default="48")
    parser.add_argument("--epochs", default="2")
    args = parser.parse_args()
    draw = np.random.default_rng(0)
    rows, effects = [], []
    with tempfile.TemporaryDirectory() as folder:
        for data in args.data:
            base = [str(SCRIPT), str(Path(data).resolve()), "--backbone", "efficientnet_lite0"]
            argv = [*base, "--epochs", args.epochs, "--size", args.size]
            runner = Runner(Path(folder), max(1, (os.cpu_count() or 1) // 2 * 2), time.monotonic() + 36_000)
            pool = runner.run([spec(argv, seed) for seed in range(args.pool)])
            same = runner.run([spec(argv, seed, Intervention("nothing")) for seed in range(SEEDS)])
            assert all(a.error is None for a in (*pool, *same)), [a.error for a in (*pool, *same) if a.error]
            identical = all(a.correct() == b.correct() for a, b in zip(pool, same, strict=False))
            confirmed = refuted = 0
            count = args.experiments // len(args.data)
            for _ in range(count):
                chosen = draw.choice(args.pool, 2 * SEEDS, replace=False)
                arms = [pool[i] for i in chosen]
                found = compared(arms[:SEEDS], arms[SEEDS:])
                assert found is not None
                effect = measure(found, 1)
                verdict = judge_effect(effect, float(np.sign(effect.value) or 1)).verdict  # either direction counts
                confirmed += verdict == "confirmed"
                refuted += verdict == "refuted"
                effects.append(abs(effect.value))
            spread = np.std([a.accuracy for a in pool], ddof=1)
            rows.append(
                f"| {Path(data).name} | {count} | {confirmed} | {refuted} | {100 * spread:.1f} | {'yes' if identical else 'NO'} |"
            )
    text = (
        "# A/A experiments\n\n| data | experiments, other seeds | confirmed | refuted | spread of one seed, points | "
        f"same seeds: identical answers |\n|---|---|---|---|---|---|\n{chr(10).join(rows)}\n\n"
        f"Median absolute effect {np.median(effects):.1f} points. {SEEDS} seeds an arm from a pool of {args.pool}, "
        f'reference script at {args.size} px, {args.epochs} epochs.\n\nCommand: `make bench-false-alarms DATA="FOLDER..."`.\n'
    )
    (ROOT / "benchmarks" / "results" / "false_alarms.md").write_text(text)
    print(text)


def spec(argv: list[str], seed: int, *interventions: Intervention) -> ArmSpec:
    """One arm of the reference script."""
    return ArmSpec(argv[0], None, argv, str(ROOT), seed, 0, 1.0, [0], [1], list(interventions))


if __name__ == "__main__":
    main()
