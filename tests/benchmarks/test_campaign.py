"""Generated programs: each is Python, differs from its twin where it is meant to, tells nothing, and its half is as hashed."""

from __future__ import annotations

import ast
import hashlib
import json
import random
import sys
from functools import cache
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from campaign.base import Base
from campaign.draft import Draft, NotHereError
from campaign.harness import write
from campaign.kind import STAGES, Kind
from campaign.kinds import BY_NAME, FAULTS, HABITS
from campaign.plan import Program, bases, digest, programs, stages_of
from campaign.report import Case, expected_error, figures, reliability, true_cost
from campaign.style import styles

from valgap.confidence import MAP

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
# The slots that a fault of the stage may touch, beside imports, classes and what is kept between epochs.
ANYWHERE = {"imports", "net_defs", "before_epochs"}
READING = {"read", "tf", "tensor", "batch", "array"}
SLOTS = {
    "files": set(),
    "draw": {"loader", "train_batch"},
    "pair": {"train_items", "val_items", "train_batch", "val_batch"},
    "read_train": {f"train_{w}" for w in READING} | {f"val_{w}" for w in READING} | {".train_transform"},
    "forward": {"net", "after_net", "val_mode", "forward", "val_forward"},
    "loss": {"loss"},
    "update": {"optimizer", "scheduler", "step", "step_head", "after_step", "after_net", "epoch_end", "train_batch", "loss"},
    "choose": {"remember", "finish", "epoch_start", "epoch_end"},
    "measure": {"count", "count_start", "pred", "result"},
}


@cache
def all_bases() -> list[Base]:
    return bases()


@cache
def all_programs() -> list[Program]:
    return programs()


@cache
def sound_texts() -> dict[str, str]:
    return {base.name: Draft(base, random.Random(0)).text() for base in all_bases()}


def drafts(kind: Kind) -> list[Draft]:
    """That kind in each style in which it has a place, on the first setup that suits."""
    found = {}
    for base in all_bases():
        if base.style.name not in found:
            draft = Draft(base, random.Random(kind.name + base.name))
            try:
                kind.apply(draft)
            except NotHereError:
                continue
            found[base.style.name] = draft
    return list(found.values())


@pytest.mark.parametrize("stage", STAGES)
def test_each_fault_changes_the_program_at_its_stage_alone_and_leaves_python(stage: str) -> None:
    kinds = [k for k in FAULTS if k.stages[0] == stage]
    assert kinds or stage == "read_val"
    for kind in kinds:
        made = drafts(kind)
        assert made, kind.name
        for draft in made:
            text = draft.text()
            if stage == "files":
                assert draft.files is not None and not draft.changed()
                assert text == sound_texts()[draft.base.name]
                continue
            assert text != sound_texts()[draft.base.name], (kind.name, draft.base.name)
            ast.parse(text)
            strange = draft.changed() - SLOTS[stage] - ANYWHERE
            assert not strange, (kind.name, draft.base.name, strange)


def test_sound_habits_are_python_too() -> None:
    for kind in HABITS:
        assert kind.sound
        assert [ast.parse(d.text()) for d in drafts(kind)], kind.name


def test_halves_are_as_hashed_and_as_committed() -> None:
    committed = json.loads((BENCHMARKS / "campaign" / "halves.json").read_text())
    listed = {half: {n for names in by_stage.values() for n in names} for half, by_stage in committed.items()}
    even = {name for name in BY_NAME if hashlib.sha256(name.encode()).digest()[0] % 2 == 0}
    assert listed == {"calibration": even, "heldout": set(BY_NAME) - even}


def test_programs_are_many_a_quarter_is_healthy_and_no_program_mixes_halves() -> None:
    made = all_programs()
    assert len(made) >= 600
    assert sum(p.healthy for p in made) >= len(made) / 4
    assert len({k.name for p in made for k in p.kinds if not k.sound}) >= 60
    names = {half: {k.name for p in made if p.half == half for k in p.kinds} for half in ("calibration", "heldout")}
    assert not names["calibration"] & names["heldout"]
    assert any(len(p.kinds) == 2 for p in made)


def test_nothing_in_a_program_tells_of_the_fault(tmp_path: Path) -> None:
    for program in all_programs()[::9]:
        text = write(program.draft, tmp_path, program.base.seed, probed=False).read_text()
        assert not any(f" {k.name} " in text or f"def {k.name}" in text for k in program.kinds)
        assert "campaign" not in text and "#:" not in text and "$" not in text


def test_the_probe_is_in_the_bare_program_only_and_leaves_the_draft(tmp_path: Path) -> None:
    for style in styles():
        program = next(p for p in all_programs() if p.base.style.name == style)
        before = dict(program.draft.slots)
        text = write(program.draft, tmp_path, 1, probed=True).read_text()
        assert text.count("campaign_truth.add(") == 1 and text.count("campaign_truth.begin()") == 1
        assert program.draft.slots == before


def test_a_fault_of_reading_is_at_the_stage_of_its_sides() -> None:
    kind = BY_NAME["quarter_turn"]
    assert stages_of(kind, {"sides": ("val",)}) == ("read_val",)
    assert stages_of(kind, {"sides": ("train", "val")}) == ("read_train", "read_val")


def case(program: Program, points: float, findings: list[tuple[str, str, float, float]]) -> Case:
    told = [{"code": c, "stage": s, "confidence": p, "points": v} for c, s, p, v in findings]
    row = {"findings": [f for f in told if f["confidence"] >= 0.5], "top": told[0] if told else None, "stages": None}
    row["map"] = list(MAP)  # told by the line that is in force
    return Case(program, points, 0.0, row)


def test_figures_count_stage_name_and_false_suspicions() -> None:
    made = all_programs()
    single = [p for p in made if len(p.kinds) == 1 and p.stages == ("update",) and "TRN401" in p.codes]
    healthy = [p for p in made if not p.kinds]
    cases = [
        case(single[0], 40.0, [("TRN401", "update", 0.75, 42.0)]),
        case(single[1], 40.0, [("DAT107", "files", 0.85, 5.0), ("TRN401", "update", 0.7, 9.0)]),
        case(single[2], 1.0, [("DAT107", "files", 0.85, 5.0)]),
        case(healthy[0], 0.0, [("DAT107", "files", 0.65, 5.0)]),
        case(healthy[1], 0.0, [("DAT107", "files", 0.45, 5.0)]),
    ]
    told = figures(cases)
    assert told["stage right first"].startswith("1 of 2, 50 %")
    assert told["stage right within the first two"].startswith("2 of 2, 100 %")
    assert told["name right first, where there is one"].startswith("1 of 2")
    assert told["false suspicion on a healthy program"].startswith("1 of 2")
    assert told["told cost near the true one, where the stage is right"].startswith("1 of 1")
    assert [(n, right) for _, _, n, _, right in reliability(cases)] == [(1, 0.0), (1, 0.0), (1, 1.0), (1, 0.0)]
    assert expected_error(reliability(cases)) == pytest.approx((0.45 + 0.65 + 0.25 + 0.85) / 4)


def test_stages_of_the_json_come_before_findings() -> None:
    program = next(p for p in all_programs() if p.stages == ("loss",))
    plain = case(program, 9.0, [("DAT107", "files", 0.9, 5.0)])
    assert not plain.right(2)
    stages = [{"stage": "loss", "verdict": "at fault", "confidence": 0.8, "points": {"value": 8.0}}]
    assert Case(program, 9.0, 0.0, {**plain.row, "stages": stages}).right(1)


def test_true_cost_is_that_of_the_twin_less_its_own_over_the_seeds() -> None:
    made = all_programs()
    program = next(p for p in made if p.stages == ("loss",))
    twin = digest(program.base.name)
    given = [(program.name, 0, 0.5, 2.0), (twin, 0, 0.75, 1.0), (program.name, 1, 0.25, 2.0), (twin, 1, 0.75, 1.5)]
    rows = {("bare", n, s): {"accuracy": a, "nll": nll, "printed": a} for n, s, a, nll in given}
    assert true_cost(program, rows) == (37.5, 0.75)
    wrong = next(p for p in made if p.stages == ("measure",))
    shown = {
        ("bare", wrong.name, 0): {"accuracy": 0.75, "nll": 1.0, "printed": 0.25},
        ("bare", digest(wrong.base.name), 0): {"accuracy": 0.75, "nll": 1.0, "printed": 0.75},
    }
    assert true_cost(wrong, shown) == (50.0, 0.0)
