"""Arms per minute: forked at the first loader, and each begun anew, with this valgap and an older one.

python benchmarks/proof_arms.py DATA [--program reference] [--seeds 3] [--causes 2] [--epochs 1] [--size 64] [--before SRC]
                                [--rounds 2]

The arms are those of a diagnosis: the control and as many treatments as --causes says (another learning rate: images and their
order are the control's), each in so many seeds; --causes 0: the control alone, whose arms have no order in common.

--program takes the name of a program of the campaign as well (its data are made in .bench-campaign). --before: src of an older
checkout, whose cold arms are run in turn with ours, since a machine may be busy with other things.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from valgap.experiments.arm import ArmSpec
from valgap.experiments.runner import Runner
from valgap.types import Intervention

HERE = Path(__file__).resolve().parent
SCRIPT = HERE.parent / "examples" / "reference_resnet50.py"
ROWS, TABLE = HERE / "results" / "proof_arms.jsonl", HERE / "results" / "proof_arms.md"
INTRODUCTION = """Made by `python benchmarks/proof_arms.py DATA --before SRC --label LABEL` (SRC: the sources as they were before
arms were forked). As many arms at once as `parallel` says, each with one thread. `causes`: beside the control so many treatments
whose images and order are the control's (another learning rate); 0: control arms alone, which have validation images in common.
Forked ones share what they do alike; those that begin anew share it, too, but for imports, data sets and weights."""
FORKED, COLD, OLD = "forked", "begun anew", "begun anew, before"


def specs_of(args: argparse.Namespace) -> list[ArmSpec]:
    """The arms: the program and its treatments, seed by seed."""
    if args.program == "reference":
        given = [str(args.data.resolve()), "--backbone", "efficientnet_lite0", "--epochs", str(args.epochs)]
        argv = [str(SCRIPT), *given, "--size", str(args.size)]
    else:
        from campaign.data import prepare
        from campaign.harness import arguments, write
        from campaign.plan import programs

        keep = Path(".bench-campaign").resolve()
        prepare(args.data.resolve(), keep / "data")
        program = next(p for p in programs() if p.name == args.program)
        file = write(program.draft, keep / "arms" / program.name, program.base.seed, probed=False)
        argv = arguments(program, file, keep)
    treated = [[Intervention("scale_rate", {"factor": 0.5**k})] if k else [] for k in range(1 + args.causes)]
    seeds = [s for s in range(args.seeds) for _ in treated]
    acts = treated * args.seeds  # seed by seed, as a diagnosis runs them
    arms = [ArmSpec(argv[0], None, argv, str(Path.cwd()), s, 0, 1.0, [0], [1], a) for s, a in zip(seeds, acts, strict=True)]
    # As a diagnosis asks for them, where the valgap at work knows of it.
    known = {f.name for f in fields(ArmSpec)}
    return [replace(a, **({"answers_only": True} if "answers_only" in known else {})) for a in arms]


def measured(specs: list[ArmSpec], warm: bool, parallel: int) -> dict[str, Any]:
    """Seconds until the last arm has ended, those of the start that all share, of the processor, and each arm's losses."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(Path(folder), parallel, time.monotonic() + 3600, **({"warm": True} if warm else {}))
        begun = time.monotonic()
        if warm:
            runner.wait_at_loaders(specs)
        shared = time.monotonic() - begun
        results = runner.run(specs)
        seconds = time.monotonic() - begun
        if hasattr(runner, "close"):  # older ones have nothing to end
            runner.close()
    assert all(r.error is None for r in results), [r.error for r in results]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    losses = [hashlib.sha256(r.samples.loss.tobytes()).hexdigest()[:16] for r in results if r.samples is not None]
    return {
        "seconds": seconds,
        "shared": shared,
        "processor": processor,
        "losses": losses,
        "cold": "; ".join(getattr(runner, "cold", [])),
    }


def elsewhere(args: argparse.Namespace) -> dict[str, Any]:
    """The same of cold arms, with the valgap of another checkout."""
    given = [f"--{k}={getattr(args, k)}" for k in ("program", "seeds", "causes", "parallel", "epochs", "size")]
    command = [sys.executable, __file__, str(args.data), *given, "--cold-only"]
    variables = {**os.environ, "PYTHONPATH": str(args.before.resolve())}
    done = subprocess.run(command, env=variables, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Print each way, their ratios, and whether their answers are the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--program", default="reference")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--causes", type=int, default=2)
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--label", default="", help="under which the result is written to results/proof_arms.md")
    parser.add_argument("--cold-only", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    specs = specs_of(args)
    if args.cold_only:
        print(json.dumps(measured(specs, False, args.parallel)))
        return
    took: dict[str, list[float]] = defaultdict(list)
    spent: dict[str, list[float]] = defaultdict(list)
    losses = set()
    loads: list[float] = []
    for _ in range(args.rounds):
        ways = {FORKED: lambda: measured(specs, True, args.parallel), COLD: lambda: measured(specs, False, args.parallel)}
        if args.before is not None:
            ways[OLD] = lambda: elsewhere(args)
        for name, way in ways.items():
            found = way()
            took[name].append(found["seconds"])
            spent[name].append(found["processor"])
            losses.add(tuple(found["losses"]))
            loads.append(round(os.getloadavg()[0], 1))
            told = (
                f"{found['seconds']:.0f} s, {found['shared']:.0f} s of them shared {found['cold']}, load {os.getloadavg()[0]:.1f}"
            )
            print(f"{name}: {len(specs)} arms in {told}", flush=True)
    for line in lines(took, spent, len(specs)):
        print(line)
    print(f"the same losses, bit by bit, however they began: {len(losses) == 1}")
    if args.label:
        rows = {"label": args.label, "arms": len(specs), "took": took, "spent": spent, "same": len(losses) == 1, "load": loads}
        rows["asked"] = {k: getattr(args, k) for k in ("program", "seeds", "causes", "epochs", "size", "parallel")}
        with ROWS.open("a") as file:
            file.write(json.dumps(rows) + "\n")
        write_table()


def lines(took: dict[str, list[float]], spent: dict[str, list[float]], arms: int) -> list[str]:
    """A row of the table for each way."""
    return [
        f"| {name} | {60 * arms * len(seconds) / sum(seconds):.1f} | {sum(spent[name]) / len(seconds) / arms:.1f} | "
        f"{sum(seconds) / sum(took[FORKED]):.2f} | {sum(spent[name]) / sum(spent[FORKED]):.2f} |"
        for name, seconds in took.items()
    ]


def write_table() -> None:
    """results/proof_arms.md from the newest row of each label."""
    rows = {r["label"]: r for r in map(json.loads, ROWS.read_text().splitlines())}
    text = ["# Arms per minute", "", INTRODUCTION, ""]
    for label, row in rows.items():
        asked = ", ".join(f"{k} {v}" for k, v in row["asked"].items())
        text += [f"## {label}: {row['arms']} arms ({asked})", ""]
        text += [f"Load {min(row['load']):.1f} to {max(row['load']):.1f}. Losses are the same, bit by bit: {row['same']}.", ""]
        text += ["| arms | a minute | seconds of the processor each | forked ones: times as many | by the processor |"]
        text += ["|---|---|---|---|---|", *lines(row["took"], row["spent"], row["arms"]), ""]
    TABLE.write_text("\n".join(text))


if __name__ == "__main__":
    main()
