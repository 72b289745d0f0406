"""What every check must be, whatever it looks for."""

from __future__ import annotations

import ast
import json
import pickle
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.checks.cases import healthy, quiet, without
from valgap.checks import CATALOGUE
from valgap.diagnosis import judge
from valgap.experiments.scoring import is_arguments, is_score
from valgap.report.as_json import diagnosis_to_json
from valgap.seams.acting.interventions import make
from valgap.types import Case, Check, Clear, Diagnosis, Finding, Intervention, NotApplicable, Untreatable

HEADINGS = ("What it looks for", "Why it hurts validation", "What else looks like this", "Remedy", "Source")
FOLDER = Path(__file__).parents[2] / "src" / "valgap" / "checks"

each = pytest.mark.parametrize("check", CATALOGUE, ids=lambda c: c.code)


@each
def test_documentation(check: Check) -> None:
    lines = check.doc.splitlines()
    places = [lines.index(h) for h in HEADINGS]
    assert places == sorted(places)
    assert lines[0].endswith(".")
    assert all(lines[p + 1].strip() for p in places)


def test_codes_and_files() -> None:
    assert len({c.code for c in CATALOGUE}) == len(CATALOGUE)
    assert all(re.fullmatch(r"(DAT1|PRE2|MOD3|TRN4|EVA5|STG6)\d\d", c.code) for c in CATALOGUE)
    assert [c.code for c in sorted(CATALOGUE, key=lambda c: "DPMTES".index(c.code[0]))] == [c.code for c in CATALOGUE]
    families = {"DAT": "data", "PRE": "preprocessing", "MOD": "model", "TRN": "training", "EVA": "evaluation", "STG": "stage"}
    files = {(f.parent.name, f.stem) for f in FOLDER.glob("*/*.py") if f.stem != "__init__" and f.parent.name != "shared"}
    assert {(families[c.code[:3]], c.name) for c in CATALOGUE} == files
    tests = Path(__file__).parents[1] / "checks"
    # Whole stages share one test; what they are compared with is tested in tests/reference.
    shared = "stage_faults"
    assert all((tests / f"test_{shared if c.code.startswith('STG') else c.name}.py").is_file() for c in CATALOGUE)


@each
def test_silent_on_a_sound_run(check: Check) -> None:
    assert quiet(check.detect(healthy()))
    assert isinstance(check.detect(healthy()), (Clear, NotApplicable))


@each
def test_deterministic_and_pure(check: Check) -> None:
    case = healthy()
    before = pickle.dumps(case)
    torch.manual_seed(91)
    np.random.seed(92)
    random.seed(93)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    first = check.detect(case)
    assert repr(check.detect(case)) == repr(first)
    assert pickle.dumps(case) == before
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    assert random.getstate() == states[2]


@each
def test_an_empty_run_is_not_applicable(check: Check) -> None:
    bare: Case = without(without(healthy(), "train"), "validation")
    assert isinstance(check.detect(bare), NotApplicable)


# Judged on evidence alone: no re-run removes them.
# (A temperature changes the loss, and an order the printed number; neither moves the accuracy that the arms are compared by.)
# (What goes wrong between processes is judged on evidence as well: a re-run is one process.)
UNTREATED = {
    *("DAT107", "DAT112", "DAT113", "PRE209", "MOD307", "TRN415", "TRN416", "TRN417"),
    *("EVA503", "EVA504", "EVA505", "EVA507", "EVA508", "EVA509", "EVA510", "EVA511"),
    "STG609",
}


def test_every_cause_has_a_treatment_or_is_known_to_have_none() -> None:
    assert {c.code for c in CATALOGUE if c.treat is None} == UNTREATED


@each
def test_treatments_are_plain_and_can_be_made(check: Check) -> None:
    if check.treat is None:
        return
    case = healthy()
    treatment = check.treat(case, Finding("", 5.0, 0.9, (), "", subjects=("a.jpg = b.jpg",)))
    assert isinstance(treatment, (Intervention, Untreatable))
    if isinstance(treatment, Untreatable):
        assert treatment.reason
        return
    assert json.loads(json.dumps(treatment.settings, allow_nan=False)) == treatment.settings
    if not is_score(treatment) and not is_arguments(treatment):
        assert make(treatment).phase in ("train", "validation", "both")


def test_json_is_plain() -> None:
    case = healthy()
    judged = tuple(judge(case, CATALOGUE))
    body = diagnosis_to_json(Diagnosis(case.run, judged, 0.8, None, None))
    assert json.loads(json.dumps(body, allow_nan=False)) == body
    assert len(body["clear"]) + len(body["not_applicable"]) + len(body["findings"]) == len(CATALOGUE)


def test_a_crash_is_an_outcome() -> None:
    def broken(case: Case) -> Clear:
        raise ZeroDivisionError("on purpose")

    judged = judge(healthy(), [Check("DAT199", "broken", broken, "", "files")])
    assert "ZeroDivisionError" in judged[0].outcome.traceback  # type: ignore[union-attr]


def test_no_check_names_another() -> None:
    """Which of two findings explains the other is decided by stage, in one place; docstrings may tell causes apart."""
    pattern = re.compile(r"(?:DAT1|PRE2|MOD3|TRN4|EVA5|STG6)\d\d")
    for file in FOLDER.glob("*.py"):
        source = file.read_text()
        own = re.findall(r'code="(\w+)"', source)
        first = ast.parse(source).body[0].end_lineno or 0
        named = pattern.findall("\n".join(source.splitlines()[first:]))
        assert set(named) <= set(own), file.name
