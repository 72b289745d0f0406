"""The bench of killed commands sees a process that was left, a file that was left, and a record that is not read to its end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from killed import ground, subjects
from killed.ground import Ended, Ground, stray
from killed.subjects import SUBJECTS, moment, whole_lines

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")


def test_what_lies_elsewhere_is_stray() -> None:
    before = {"work/program.py"}
    after = {*before, "work/r/events.jsonl", "work/r", "work/r2", "home/.cache"}
    assert stray(before, after, ("work/r",)) == ["home/.cache", "work/r2"]


PARENT = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
open("started", "w")
import time
time.sleep(60)
"""
TRIAL = """
import sys, time
from pathlib import Path
sys.path.insert(0, {benchmarks!r})
from killed import ground
ground.ORPHAN_S = 0.3
place = ground.Ground(Path("g").absolute(), Path("template"))
process = place.start(["parent.py"])
while not (place.work / "started").exists():
    time.sleep(0.01)
assert process.kill()
left = place.orphans(process.pid)
assert len(left) == 1 and "sleep" in left[0], left
assert place.orphans(process.pid) == []
ended = place.run(["ended.py"])
print(ended.status, ended.refused, ended.out, sorted(place.paths()))
"""


def test_a_process_that_was_left_is_found_and_ended(tmp_path: Path) -> None:
    (tmp_path / "template").mkdir()
    (tmp_path / "template" / "parent.py").write_text(PARENT)
    (tmp_path / "template" / "ended.py").write_text("import os; print(os.environ['HOME'][-6:])\nraise SystemExit(3)\n")
    command = [sys.executable, "-c", TRIAL.format(benchmarks=BENCHMARKS)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=dict(os.environ), check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "3 False g/home\n ['work/ended.py', 'work/parent.py', 'work/started']\n"


def test_a_record_that_is_not_read_to_its_end_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert whole_lines(tmp_path) == []
    (tmp_path / "events.jsonl").write_text("{")
    assert whole_lines(tmp_path) == []
    (tmp_path / "events.jsonl").write_text("{}\n{}\n{")
    monkeypatch.setattr(subjects, "read_record", lambda folder: None)
    monkeypatch.setattr(subjects, "read_events", lambda folder, file: ([{}], None))
    assert whole_lines(tmp_path) == ["1 of 2 whole lines were read"]


def test_moments_are_the_same_every_time_and_within_the_command() -> None:
    drawn = [moment(SUBJECTS[0], n, 2.0) for n in range(50)]
    assert drawn == [moment(SUBJECTS[0], n, 2.0) for n in range(50)]
    assert 0 <= min(drawn) < 0.3 and 1.7 < max(drawn) <= 2.0
    assert sum(s.count for s in SUBJECTS) == 1000


def test_a_refusal_is_one_line() -> None:
    assert Ended(2, "", "valgap: there is no such thing\n", 0.1).refused
    assert not Ended(2, "", "Traceback (most recent call last):\nvalgap: x\n", 0.1).refused
    assert not Ended(1, "", "valgap: x\n", 0.1).refused
    assert Ground.__module__ == ground.__name__
