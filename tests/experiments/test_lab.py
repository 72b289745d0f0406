"""Which causes a shortened program may still be asked about."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checks.cases import healthy
from valgap.checks import CATALOGUE
from valgap.experiments.arm import ArmSpec
from valgap.experiments.lab import Lab
from valgap.experiments.plan import Length
from valgap.experiments.runner import ArmResult, Runner
from valgap.experiments.suspects import Suspect
from valgap.reference import Stages
from valgap.types import Finding, Intervention, Judged


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
