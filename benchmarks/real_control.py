"""What the sandbox makes of a recorded run, as JSON: python benchmarks/real_control.py RECORD

`completed`: the closing measurements that did not fit after the run, made in a rebuilt program (why not, if not). `control`: the
whole program once more as it is, its validation beside the recorded one.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from valgap.experiments.arm_result import last_scored
from valgap.experiments.lab import Group, Lab, named_as_in
from valgap.experiments.plan import Length, choose_length
from valgap.experiments.rebuild import completed
from valgap.experiments.runner import Limits, Runner
from valgap.experiments.suspects import NotRepeatableError, base_spec
from valgap.record.reader import read_record
from valgap.types import RunRecord

LONGEST_S = 600.0


def control(run: RunRecord) -> dict[str, Any]:
    """The program as it is, once, in the sandbox."""
    try:
        base = base_spec(run)
    except NotRepeatableError as why:
        return {"error": str(why)}
    if last_scored(run, base.validation) is None:  # valgap diagnose refuses it as well
        return {"error": "cannot be tried: no validation pass with labels was recorded"}
    length = choose_length(run, 1, LONGEST_S) or Length(0, 1.0, run.seconds)
    until = time.monotonic() + 1.0
    limits = Limits(LONGEST_S)
    runner = Runner(Path(run.path) / "experiments", 1, until, grace=LONGEST_S, limits=limits, like=run)
    lab = Lab(run, base, length, runner)
    arm = named_as_in(run, runner.run([replace(lab.specs(Group((), 1))[0], closing=0.0)])[0])
    problem, told, same = lab.fidelity([arm])
    recorded = last_scored(run, base.validation, length.epochs)
    own = replace(arm, record=run, samples=recorded.samples if recorded is not None else None, names=None)
    return {
        "error": arm.error,
        "problem": problem,
        "told": told,
        "same": same,
        "epochs": length.epochs,
        "accuracy": arm.accuracy,
        "recorded": own.accuracy,
        "images": len(arm.placed()),
        "images_recorded": len(own.placed()),
        "same_images": sorted(arm.placed()) == sorted(own.placed()),
        "same_answers": sum(own.correct().get(k) == v for k, v in arm.correct().items()),
        "seconds": round(arm.seconds, 1),
    }


def main() -> None:
    """Print the object."""
    run = read_record(sys.argv[1])
    whole, why = completed(run)
    cut = run.closing is not None and bool(run.closing.cut)
    made = sorted(whole.closing.rescores) if whole.closing is not None else []
    print(json.dumps({"completed": {"cut": cut, "why_not": why, "made": made}, "control": control(run)}, default=float))


if __name__ == "__main__":
    main()
