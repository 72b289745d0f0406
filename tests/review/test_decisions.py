"""Decisions: the last one counts, undo takes back, names survive, what a crash cuts off is left out, nothing is rewritten."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from pathlib import Path

import pytest

from valgap.errors import DataError
from valgap.review.decisions import COLUMNS, Decision, Decisions

HOSTILE = 'a "quoted", name\nwith = lines\r and 😀<script>' + "x" * 300


def test_the_last_one_counts_and_undo_takes_back(tmp_path: Path) -> None:
    file = tmp_path / "d.csv"
    one = Decisions(file)
    one.make(Decision(HOSTILE, "drop", split="train", given="ant", cause="DAT104"))
    one.make(Decision("b", "keep"))
    one.make(Decision(HOSTILE, "relabel", "bee"))
    again = Decisions(file)
    assert dict(again.current()) == dict(one.current())
    assert again.current()[HOSTILE].label == "bee" and len(again) == 2
    size = file.stat().st_size
    assert again.undo() == [Decision(HOSTILE, "relabel", "bee")]
    assert file.stat().st_size > size, "an undo is a row as well"
    assert Decisions(file).current()[HOSTILE].kind == "drop"
    again.undo(), again.undo()
    assert again.undo() == [] and len(Decisions(file)) == 0


def test_what_was_decided_together_is_undone_together(tmp_path: Path) -> None:
    file = tmp_path / "d.csv"
    one = Decisions(file)
    one.make(Decision("a", "keep"))
    one.make(*(Decision(name, "drop") for name in "bcd"))
    one.make(Decision("c", "relabel", "bee"), Decision("e", "relabel", "bee"))
    again = Decisions(file)  # after a restart as before it
    assert [d.path for d in again.undo()] == ["e", "c"]
    assert {p: d.kind for p, d in Decisions(file).current().items()} == {"a": "keep", "b": "drop", "c": "drop", "d": "drop"}
    assert [d.path for d in Decisions(file).undo()] == ["d", "c", "b"]
    assert [d.path for d in Decisions(file).undo()] == ["a"] and Decisions(file).undo() == []
    with pytest.raises(DataError):
        again.make(Decision("f", "keep"), Decision("g", "explode"))
    assert "f" not in Decisions(file).current(), "all or none"


def test_of_an_older_file_each_decision_is_undone_alone(tmp_path: Path) -> None:
    file = tmp_path / "d.csv"
    stamp = "2026-11-30T14:49:38+0000"  # in seconds: rows that share it were not made together
    file.write_text(f"{','.join(COLUMNS)}\n{stamp},a,keep,,,,\n{stamp},b,drop,,,,\n")
    assert [d.path for d in Decisions(file).undo()] == ["b"]
    assert set(Decisions(file).current()) == {"a"}


def test_a_full_disk_leaves_nothing_of_what_was_decided_together(tmp_path: Path) -> None:
    file = tmp_path / "d.csv"
    one = Decisions(file)
    one.make(Decision("a", "keep"))
    before = file.read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 60, limit[1]))
    try:
        with pytest.raises(DataError, match="could not be written"):
            one.make(*(Decision(f"image {i}", "drop") for i in range(9)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert file.read_bytes() == before and set(one.current()) == {"a"}
    one.make(Decision("b", "drop"))
    assert set(Decisions(file).current()) == {"a", "b"}


@pytest.mark.parametrize("cut", [*range(1, 40, 3), 400])
@pytest.mark.parametrize("name", ["b", HOSTILE])
def test_a_row_that_was_cut_off_is_left_out(tmp_path: Path, name: str, cut: int) -> None:
    file = tmp_path / "d.csv"
    one = Decisions(file)
    one.make(Decision("a", "drop"))
    first = file.stat().st_size
    one.make(Decision(name, "keep"))
    file.write_bytes(file.read_bytes()[:-cut] if cut < file.stat().st_size - first else file.read_bytes()[:first])
    after = Decisions(file)
    assert set(after.current()) == ({"a", name} if cut == 1 else {"a"})
    after.make(Decision("c", "unsure"))
    assert set(Decisions(file).current()) == {*after.current()} and "c" in Decisions(file).current()


def test_foreign_files_and_senseless_decisions(tmp_path: Path) -> None:
    file = tmp_path / "d.csv"
    file.write_text("path,label\na,b\n")
    with pytest.raises(DataError, match="no file of decisions"):
        Decisions(file)
    file.write_text(",".join(COLUMNS) + "\nt,a,explode,,,,\nt,b,keep,,,,\n")
    with pytest.raises(DataError, match="row 2"):
        Decisions(file)
    fresh = Decisions(tmp_path / "e.csv")
    for bad in (Decision("a", "explode"), Decision("a", "relabel")):
        with pytest.raises(DataError):
            fresh.make(bad)
    with pytest.raises(DataError, match="could not be written"):
        Decisions(tmp_path / "no" / "folder.csv").make(Decision("a", "drop"))


def _decide_for_ever(file: str, ready: object) -> None:
    one = Decisions(Path(file))
    number = 0
    while True:
        one.make(Decision(f"image {number}\n", "drop"))
        ready.value = number  # type: ignore[attr-defined]
        number += 1


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    file = tmp_path / "d.csv"
    told = multiprocessing.get_context("fork").Value("i", -1)
    child = multiprocessing.get_context("fork").Process(target=_decide_for_ever, args=(os.fspath(file), told))
    child.start()
    while told.value < 40:
        assert child.is_alive()
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    kept = Decisions(file).current()
    assert {f"image {i}\n" for i in range(told.value + 1)} <= set(kept)
