"""Long lists of findings: the first in the report, all in a file."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from valgap.report.lists import shortened
from valgap.types import Check, Clear, Diagnosis, Finding, Judged, Ranked, RunRecord


def diagnosis(count: int) -> Diagnosis:
    names = tuple(f"train/a/{i}.jpg" for i in range(count))
    ranking = (Ranked(names[0], 0.9, "a", "b"),)
    finding = Finding("many", 1.0, 0.9, (), "look", names, ranking)
    checks = [Check(code, name, lambda case: Clear(""), "", "files") for code, name in (("DAT104", "one"), ("DAT108", "two"))]
    judged = (Judged(checks[0], finding), Judged(checks[1], Clear("fine")))
    return Diagnosis(RunRecord.empty("photos"), judged, None, None, None)


def test_what_is_cut_stands_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("valgap.report.lists.LISTED", 3)
    cut, files = shortened(diagnosis(10), tmp_path / "lists")
    assert isinstance(cut.judged[0].outcome, Finding)
    assert cut.judged[0].outcome.subjects == ("train/a/0.jpg", "train/a/1.jpg", "train/a/2.jpg")
    assert files == {"DAT104": (tmp_path / "lists" / "DAT104.csv", 10)}
    with files["DAT104"][0].open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [r["subject"] for r in rows] == [f"train/a/{i}.jpg" for i in range(10)]
    assert (rows[0]["score"], rows[0]["likely"], rows[1]["score"]) == ("0.9", "b", "")


def test_short_lists_stay(tmp_path: Path) -> None:
    whole = diagnosis(10)
    assert shortened(whole, tmp_path / "lists") == (whole, {})
    assert not (tmp_path / "lists").exists()
