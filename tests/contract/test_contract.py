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

from tests.checks.cases import MEAN, STD, healthy, quiet, without
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


# What these look for shows in the end alone: a run that was not seen whole is not judged by them.
WHOLE_RUN = {
    *("DAT103", "DAT107", "PRE206", "MOD304", "MOD305", "MOD309", "MOD310", "MOD311", "TRN402", "TRN403", "TRN404"),
    *("TRN405", "TRN406", "TRN410", "TRN411", "TRN414", "TRN420", "EVA504", "EVA505", "EVA506", "EVA507", "STG608"),
}


def test_what_needs_the_whole_run_says_of_what() -> None:
    assert {c.code for c in CATALOGUE if c.needs_whole_run} == WHOLE_RUN
    assert all(isinstance(c.needs_whole_run, str) for c in CATALOGUE)


# What each would do about a sound run, where it would do anything.
TREATMENTS = {
    "DAT101": ("score_without", {"names": ["a.jpg"]}),
    "DAT103": ("balanced_sampling", {"phase": "train"}),
    "DAT105": ("score_without", {"names": ["a.jpg = b.jpg"]}),
    "DAT108": ("score_without", {"names": ["a.jpg = b.jpg"]}),
    "DAT111": ("score_without", {"names": []}),
    "PRE201": ("affine", {"phase": "both", "scale": [1.0] * 3, "shift": [0.0] * 3}),
    "PRE202": (
        "affine",
        {"phase": "both", "scale": [255 / s for s in STD], "shift": [-m / s for m, s in zip(MEAN, STD, strict=True)]},
    ),
    "PRE203": ("flip_channels", {"phase": "validation"}),
    "PRE204": ("fixed_transform", {"phase": "validation"}),
    "PRE205": ("resize", {"phase": "both", "size": [224, 224]}),
    "PRE206": ("augment", {"phase": "train", "scale": 0.5, "flip": True}),
    "PRE207": ("fixed_transform", {"phase": "train"}),
    "PRE208": ("unscramble", {"phase": "both"}),
    "MOD301": ("load_weights", {"phase": "both"}),
    "MOD302": ("hold_batchnorm", {"phase": "train", "only_frozen": True}),
    "MOD303": ("add_missing_parameters", {}),
    "MOD304": ("freeze_backbone", {"phase": "train"}),
    "MOD305": ("unfreeze_last", {"phase": "train", "share": 0.3, "factor": 0.1}),
    "MOD308": ("hold_batchnorm", {"phase": "train", "only_frozen": False}),
    "MOD309": ("no_dropout", {"phase": "train"}),
    "MOD310": ("restore_start", {"phase": "both"}),
    "MOD311": ("evaluate_trained", {"phase": "both"}),
    "MOD312": ("hold_batchnorm", {"phase": "train", "only_frozen": False}),
    "TRN401": ("scale_rate", {"phase": "train", "factor": 0.1}),
    "TRN402": ("scale_rate", {"phase": "train", "factor": 10.0}),
    "TRN404": ("score_best_epoch", {}),
    "TRN405": ("optimizer_settings", {"phase": "train", "values": {"weight_decay": 1e-3}}),
    "TRN406": ("optimizer_settings", {"phase": "train", "values": {"weight_decay": 0.0}}),
    "TRN407": ("zero_gradients", {"phase": "train"}),
    "TRN408": ("shuffle", {"phase": "train"}),
    "TRN409": ("scale_rate", {"phase": "train", "factor": 0.1}),
    "TRN410": ("scale_rate", {"phase": "train", "factor": 20 / 32}),  # batches of 20, as if the rate were for 32
    "TRN411": ("optimizer_settings", {"phase": "train", "values": {"momentum": 0.9}}),
    "TRN421": ("optimizer_settings", {"phase": "train", "values": {}}),
    "EVA501": ("eval_mode", {"phase": "validation"}),
    "EVA502": ("train_mode", {"phase": "train"}),
    "EVA506": ("score_best_epoch", {}),
    "STG605": ("eval_mode", {"phase": "validation"}),
    "STG608": ("score_best_epoch", {}),
}


def test_treatments_do_what_their_cause_asks_for() -> None:
    asked = Finding("", 5.0, 0.9, (), "", subjects=("a.jpg = b.jpg",))
    treatments = {check.code: check.treat(healthy(), asked) for check in CATALOGUE if check.treat is not None}
    made = {code: (t.name, t.settings) for code, t in treatments.items() if isinstance(t, Intervention)}
    assert made.keys() == TREATMENTS.keys()
    for code, (name, settings) in TREATMENTS.items():
        assert made[code][0] == name and made[code][1].keys() == settings.keys(), code
        for key, value in settings.items():
            near = pytest.approx(value, abs=1e-5) if isinstance(value, (float, list)) and value and key != "names" else value
            assert made[code][1][key] == near, (code, key)


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
