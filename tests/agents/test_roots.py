"""Paths outside the given folders are refused, by whatever way they lead there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from valgap.agents.roots import Roots
from valgap.errors import DataError, RecordError, ScriptError, ValgapError


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A root with a script, a sibling with another, and links from the first to the second."""
    root, other = tmp_path / "root", tmp_path / "rooted"
    for folder in (root, other):
        folder.mkdir()
        (folder / "train.py").write_text("print(1)\n")
    (root / "way").symlink_to(other)
    (root / "link.py").symlink_to(other / "train.py")
    (root / "loop").symlink_to(root / "loop")
    return root


@pytest.mark.parametrize(
    "path",
    [
        "../rooted/train.py",
        "way/train.py",
        "link.py",
        "way/../../rooted/train.py",
        "/etc/passwd",
        "",
        "a\0b",
        "~/x.py",
        "\ud800.py",
    ],
)
def test_a_way_out_is_refused(home: Path, path: str) -> None:
    with pytest.raises(ValgapError):
        Roots([home]).script(path)


def test_what_lies_inside_is_taken(home: Path) -> None:
    roots = Roots([home])
    assert roots.script("train.py") == roots.script(str(home / "train.py")) == home / "train.py"
    assert roots.script("./new/../train.py") == home / "train.py"
    assert roots.fresh("new/place") == home / "new" / "place"
    assert Roots([home, home.parent / "rooted"]).script("link.py") == home.parent / "rooted" / "train.py"
    with pytest.raises(ScriptError, match=r"\.py file"):
        roots.script(".")
    with pytest.raises(ValgapError, match="nothing is overwritten"):
        roots.fresh("train.py")
    with pytest.raises(ValgapError, match="outside"):
        roots.fresh("way/new")
    with pytest.raises(ValgapError):
        roots.inside("loop/x", "script")
    with pytest.raises(DataError, match="no folder"):
        Roots([home / "train.py"])


def test_a_record_does_not_start_a_program_outside(home: Path) -> None:
    """It may have been copied here, or written by somebody who wants something to be run."""
    roots, run = Roots([home]), home / "run"
    with pytest.raises(RecordError, match="no run directory"):
        roots.record("run")
    run.mkdir()

    def recorded(**header: object) -> str:
        (run / "events.jsonl").write_text(json.dumps({"t": "header", **header}) + "\n")
        return "run"

    assert roots.program(recorded(cwd=str(home), script="train.py")) == run
    assert roots.program(recorded(cwd=str(home), script="watch")) == run
    assert roots.program(recorded(cwd=str(home), module="train")) == run
    outside = home.parent / "rooted"
    for bad in (
        {"cwd": str(outside), "script": "train.py"},
        {"cwd": str(home), "script": str(outside / "train.py")},
        {"cwd": str(home), "script": "../rooted/train.py"},
        {"cwd": str(home), "module": "http.server"},
        {"cwd": str(home), "module": "../rooted/train"},
    ):
        with pytest.raises(ValgapError):
            roots.program(recorded(**bad))
    (run / "events.jsonl").write_text("{\n")
    with pytest.raises(RecordError, match="damaged"):
        roots.program("run")
