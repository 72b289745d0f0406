"""Closing measurements that did not fit after a run: its program is rebuilt once in the sandbox, and they are made there.

They are planned by counts, so that a record says the same whether the machine was busy or not; the clock only decides where they
are made. The rebuilt program trains nothing: one batch an epoch passes by, and the recorded weights are put in.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from valgap.experiments.arm import RESULT_FILE, WEIGHTS_FILE, ArmSpec
from valgap.experiments.arm_result import ArmResult
from valgap.experiments.lab import Lab
from valgap.experiments.plan import Length, arm_memory, can_stop_early, epoch_seconds
from valgap.experiments.runner import Limits, Runner
from valgap.experiments.scoring import SAME_ANSWERS
from valgap.experiments.suspects import NotRepeatableError, base_spec
from valgap.record.identities import Identities
from valgap.seams.closing.closing import WORK_PER_IMAGE
from valgap.seams.hosting.environment import digest_of
from valgap.types import Closing, RunRecord, SampleTable, same_samples

# The measurements there are as long as they need, but nobody waits for ever.
ENOUGH = 1e6
MOST_S = 1_800.0
MEASURING_BYTES = 4 << 30  # images and features are kept, and more is imported
INTERRUPTED = "interrupted"
FAILED_FILE = "failed.txt"


def completed(run: RunRecord, say: Callable[[str], None] | None = None) -> tuple[RunRecord, str]:
    """The record with its closing measurements whole, and why they are not; as it was where nothing was cut short.

    ``say`` is told before the program is rebuilt. What was made once is kept in ``RUN/experiments``, and so is a failure.
    """
    if run.closing is None or not run.closing.cut:
        return run, ""
    spec = _spec(run)
    if isinstance(spec, str):
        return run, spec
    seconds = sum(epoch_seconds(run))
    need = arm_memory(run)
    limits = Limits(MOST_S + 2 * seconds, need + MEASURING_BYTES if need is not None else None)
    runner = Runner(
        Path(run.path) / "experiments",
        1,
        time.monotonic() + 1.0,
        grace=MOST_S + 2 * seconds,
        limits=limits,
        like=run,
    )
    failed = runner.place(spec) / FAILED_FILE
    if failed.is_file():
        return run, failed.read_text()
    result = runner.finished(spec)
    if result is None:
        if say is not None:
            say(f"measuring what did not fit after the run: its program runs once more, without training, about {_about(run)}")
        try:
            result = runner.run([spec])[0]
        except KeyboardInterrupt:
            return run, INTERRUPTED
        finally:
            runner.close()
            runner.forget_features()
    problem = _problem(run, spec, runner, result)
    if problem:
        # An arm that was stopped (time, memory) or failed (a file, a network that was away) may end another day.
        if result.error is None and (runner.place(spec) / "record" / RESULT_FILE).is_file():
            failed.write_text(problem)
        return run, problem
    assert result.record is not None and result.record.closing is not None
    return replace(run, closing=_renumbered(run, result.record)), ""


def _spec(run: RunRecord) -> ArmSpec | str:
    """The arm that measures, or why there can be none."""
    weights = Path(run.path).resolve() / WEIGHTS_FILE
    if not weights.is_file():
        return "no weights were recorded"
    try:
        base = base_spec(run)
    except NotRepeatableError as why:
        return str(why).removeprefix("cannot be tried: ")
    digest = run.header.get("script_digest")
    if not base.module and (digest is None or digest != digest_of(str(Path(base.cwd) / base.script))):
        return f"{base.script} has changed since the run"
    closing = run.closing
    return replace(
        base,
        epochs=1 if can_stop_early(run) else 0,
        closing=ENOUGH,
        weights=str(weights),
        measured_for=str(Path(run.path).resolve()),
        planned=closing.planned if closing is not None else 0,
    )


def _about(run: RunRecord) -> str:
    """How long it takes, by the pace of the last validation, in words."""
    last, closing = run.last_validation, run.closing
    pace = last.seconds / max(1, len(last.samples)) if last is not None else 0.0
    sizes = {one.dataset: len(one.samples) for one in run.passes}
    planned = closing.planned if closing is not None else 0
    seconds = epoch_seconds(run)[0] + WORK_PER_IMAGE * pace * sum(min(n, planned) for n in sizes.values())
    return f"{max(5, 5 * round(seconds / 5)):.0f} s" if seconds < 100 else f"{math.ceil(seconds / 60)} min"


def _problem(run: RunRecord, spec: ArmSpec, runner: Runner, result: ArmResult) -> str:
    """Why the rebuilt program's measurements are not those of this run; empty where they are."""
    if result.error is not None:
        return f"the program could not be rebuilt: {result.error}"
    closing = result.record.closing if result.record is not None else None
    if closing is None or closing.cut:
        return "the rebuilt program gave no whole measurements"
    assert result.record is not None and run.closing is not None
    before, after = (c.rescores.get("val_eval") for c in (run.closing, _renumbered(run, result.record)))
    share = _agreement(before, after) if before is not None and after is not None else None
    if share is not None:
        return "" if share >= SAME_ANSWERS else f"the rebuilt program gives {share:.1%} of the finished model's answers"
    lab = Lab(run, replace(spec, epochs=0), Length(0, 1.0, 0.0), runner)
    problem, _, _ = lab.fidelity([result])
    return problem or ""


def _agreement(before: SampleTable, after: SampleTable) -> float | None:
    """Share of equal answers on the samples that both hold; None where they share none."""
    here, there = same_samples(before, after)
    return float((before.prediction[here] == after.prediction[there]).mean()) if len(here) else None


def _renumbered(run: RunRecord, rebuilt: RunRecord) -> Closing:
    """The rebuilt record's closing measurements with the run's own sample numbers."""
    closing = rebuilt.closing
    assert closing is not None
    known = Identities()
    known.add(run)
    numbers = known.add(rebuilt)
    own = len(run.sample_names)

    def ids(table: SampleTable) -> SampleTable:
        table = numbers.table(table)
        return replace(table, sample=np.where(table.sample < own, table.sample, -1).astype(np.int32))

    twins = closing.twins
    if twins is not None:
        named = [replace(t, train=int(numbers.samples[t.train]), validation=int(numbers.samples[t.validation])) for t in twins]
        twins = tuple(t for t in named if max(t.train, t.validation) < own)
    return replace(closing, rescores={k: ids(v) for k, v in closing.rescores.items()}, twins=twins)
