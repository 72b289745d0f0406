"""Which causes a shortened program may still be asked about."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.checks.cases import healthy
from tests.checks.ranks import rank, share
from valgap.checks import CATALOGUE
from valgap.experiments.arm import ArmSpec
from valgap.experiments.arm_result import ArmResult
from valgap.experiments.lab import Lab, trained_at_once
from valgap.experiments.plan import Length
from valgap.experiments.runner import Runner
from valgap.experiments.suspects import Suspect
from valgap.reference import Stages
from valgap.types import Finding, Intervention, Judged, RunRecord


@pytest.mark.parametrize(
    ("name", "treatment", "still"),
    [
        ("faulty_read_val", "read_soundly", True),  # judged on files, which the short program has as well
        ("faulty_pair", "pair_by_file", True),
        ("faulty_choose", "score_best_epoch", False),  # few epochs have no best one among them
    ],
)
def test_what_rests_on_files_may_be_asked_of_a_short_program(name: str, treatment: str, still: bool, tmp_path: Path) -> None:
    run = healthy().run
    spec = ArmSpec("a.py", None, ["a.py"], str(tmp_path), 0, 0, 1.0, [0], [1])
    lab = Lab(run, spec, Length(2, 1.0, 1.0), Runner(tmp_path, 1, 0.0), compare=lambda one: Stages(one, None))
    check = next(c for c in CATALOGUE if c.name == name)
    finding = Finding("", 20.0, 0.9, (), "")
    suspect = Suspect(Judged(check, finding), finding, Intervention(treatment))
    control = [ArmResult(spec, run, run.passes[-1].samples, (), 1.0, None)]
    assert (lab.symptom_gone(suspect, control) is None) == still


def in_processes(trainers: int, watched: str) -> RunRecord:
    """Children of no group that train, beside a process that validates weights of this digest."""
    run = healthy().run
    train, val = run.of_phase("train")[-1], run.of_phase("validation")[-1]
    learnt = share(train, train.samples, weights="end")
    children = [rank(i + 1, [learnt], rank=None, how="spawn") for i in range(trainers)]
    return replace(run, ranks=(rank(0, [share(val, val.samples, weights=watched)], rank=None), *children))


@pytest.mark.parametrize(("trainers", "watched", "at_once"), [(2, "end", True), (1, "end", False), (2, "other", False)])
def test_processes_that_train_the_same_weights_at_once_are_told_where_no_run_repeats_another(
    trainers: int, watched: str, at_once: bool, tmp_path: Path
) -> None:
    run = in_processes(trainers, watched)
    assert trained_at_once(run) is at_once
    spec = ArmSpec("a.py", None, ["a.py"], str(tmp_path), 0, 0, 1.0, [0], [1])
    lab = Lab(run, spec, Length(0, 1.0, 1.0), Runner(tmp_path, 1, 0.0))
    last = run.passes[-1].samples
    wrong = replace(last, prediction=(last.prediction + 1) % 2)
    problem, told, same = lab.fidelity([ArmResult(spec, run, wrong, (), 1.0, None)])
    assert not same and problem is not None and ("no run repeats another" in told) is at_once
    assert lab.fidelity([ArmResult(spec, run, last, (), 1.0, None)])[2]


@pytest.mark.parametrize(("recorded", "own"), [(1, 1), (None, None), (10_000, None)])
def test_re_runs_have_no_more_threads_than_the_recorded_program(recorded: int | None, own: int | None, tmp_path: Path) -> None:
    run = replace(healthy().run, header={} if recorded is None else {"threads": recorded})
    runner = Runner(tmp_path, 1, 0.0, like=run)
    assert runner.threads == (own or os.cpu_count())
    lab = Lab(run, ArmSpec("a.py", None, ["a.py"], str(tmp_path), 0, 0, 1.0, [0], [1]), Length(0, 1.0, 1.0), runner)
    last = run.passes[-1].samples
    first_wrong = np.array([1, *[0] * (len(last) - 1)])
    near = replace(last, prediction=(last.prediction + first_wrong) % 2)
    told = lab.fidelity([ArmResult(lab.base, run, near, (), 1.0, None)])[1]
    assert ("rounded in another way" in told) is (recorded is not None and recorded != runner.threads)
