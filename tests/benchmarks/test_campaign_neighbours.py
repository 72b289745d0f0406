"""Faults from threads: each tells its thread, changes its own stage alone, and leaves the halves as they are."""

from __future__ import annotations

import ast
import random
import re
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from campaign.draft import Draft
from campaign.kind import APART, HALVES, STAGES
from campaign.kinds import BY_NAME, NEIGHBOURS
from campaign.plan import Program, programs
from campaign.report import write_table

THREAD = re.compile(r"https://github\.com/\S+/(issues|pull)/\d+$")
TABLE = Path(__file__).parents[2] / "docs" / "campaign.md"
# The slots that a fault of the stage may touch, beside imports, classes and what is kept between epochs.
ANYWHERE = {"imports", "net_defs", "before_epochs"}
READING = {f"{side}_{what}" for side in ("train", "val") for what in ("read", "tf", "tensor", "batch", "array")}
SLOTS = {
    "files": set(),
    "draw": {"loader"},
    "pair": {"train_items", "val_items", "train_batch", "loss"},
    "read_train": READING,
    "read_val": READING,
    "forward": {"net", "after_net", "val_mode"},
    "loss": {"loss"},
    "update": {"optimizer", "scheduler", "step", "step_head", "epoch_end"},
    "choose": {"remember", "finish", "epoch_end", "after_step"},
    "measure": {"count", "pred", "val_loader"},
}


@cache
def all_programs() -> list[Program]:
    return programs()


def neighbours() -> list[Program]:
    return [p for p in all_programs() if p.half == APART]


def test_there_is_one_program_of_each_and_each_stage_has_some() -> None:
    assert [p.kinds[0] for p in neighbours()] == list(NEIGHBOURS)
    assert len(NEIGHBOURS) >= 30
    stages = Counter(s for p in neighbours() for s in p.stages)
    assert set(stages) == set(STAGES)
    assert not {k.name for k in NEIGHBOURS} & set(BY_NAME)


def test_they_come_after_the_halves_and_are_in_none() -> None:
    halves = [p.half for p in all_programs()]
    first = halves.index(APART)
    assert set(halves[:first]) == set(HALVES)
    assert set(halves[first:]) == {APART}


def test_each_tells_its_stage_and_its_thread_and_so_does_the_page() -> None:
    page = TABLE.read_text(encoding="utf-8")
    for kind in NEIGHBOURS:
        told = kind.apply.__doc__ or ""
        address = THREAD.search(told)
        assert address, kind.name
        assert told.split(":")[0].lower() == kind.stages[0].split("_")[0], kind.name
        line = next(line for line in page.split("\n") if line.startswith(f"| `{kind.name}` |"))
        assert address[0] in line and kind.stages[0].split("_")[0] in line


@pytest.mark.parametrize("stage", STAGES)
def test_each_changes_the_program_at_its_stage_alone_and_leaves_python(stage: str) -> None:
    for program in (p for p in neighbours() if p.stages[0] == stage):
        draft, kind = program.draft, program.kinds[0]
        text = draft.text()
        if stage == "files":
            assert draft.files is not None and not draft.changed()
            continue
        ast.parse(text)
        assert text != Draft(program.base, random.Random(0)).text(), kind.name
        assert not draft.changed() - SLOTS[stage] - ANYWHERE, kind.name


def test_the_report_has_a_column_of_them(tmp_path: Path) -> None:
    program = neighbours()[5]
    found = {"code": "TRN403", "stage": "draw", "confidence": 0.9, "points": 50.0}
    told = {"top": found, "findings": [found], "stages": None}
    rows = {("after", program.name, 0): told}
    from campaign.plan import digest

    for name, accuracy in ((program.name, 0.3), (digest(program.base.name), 0.8)):
        rows["bare", name, 0] = {"accuracy": accuracy, "printed": accuracy, "nll": 1.0}
    write_table(all_programs(), rows, tmp_path / "table.md")
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "|  | calibration | heldout | neighbours |" in text
    assert f"| {program.kinds[0].name} | draw | 1 of 1 | 50 |" in text
