"""The bench of undisturbed programs sees what differs, and only that; its runs are those of Python itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from undisturbed.differs import compared, text_difference
from undisturbed.ran import Ran, files_of

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")
BARE = Ran(
    (0,), ("epoch 1, 3 s\nacc 0.5\n",), ("note\n",), (Counter({"Linear 1": 2}),), ({"random": "a", "numpy": "b"},),
    {"work/x": "1"}, 1.0,
)  # fmt: skip
WORDS = "note\nvalgap: closing\nvalidation accuracy 50%\nvalgap: recorded in r\n"


def test_the_same_is_the_same() -> None:
    other = replace(BARE, out=("epoch 1, 99 s\nacc 0.5\n",), random=({"random": "z", "numpy": "b"},))
    recorded = replace(BARE, out=("epoch 1, 4 s\nacc 0.5\n",), err=(WORDS,), modules=(Counter({"Linear 1": 3, "copy": 1}),))
    found = compared([BARE, other], recorded)
    assert found.differs == ()
    assert found.varies == ("standard output", "state of random")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"statuses": (1,)}, "exit status 1, bare 0"),
        ({"out": ("epoch 1, 3 s\nacc 0.6\n",)}, "standard output"),
        ({"out": ("epoch 1, 3 s\nacc 0.5\nmore\n",)}, "standard output"),
        ({"out": ("epoch 1, 3 s\n",)}, "standard output"),
        ({"err": ("other\n",)}, "standard error"),
        ({"err": (WORDS + "Traceback (most recent call last):\n",)}, "standard error: more"),
        ({"modules": (Counter({"Linear 1": 1, "Linear 2": 1}),)}, "weights of 1 of 2 modules (Linear)"),
        ({"random": ({"random": "a", "numpy": "c"},)}, "state of numpy: c, bare b"),
        ({"files": {"work/x": "2"}}, "file work/x holds something else"),
        ({"files": {}}, "file work/x is not there"),
        ({"files": {"work/x": "1", "tmp/y": "1"}}, "file tmp/y is there"),
    ],
)
def test_every_difference_is_seen(change: dict[str, object], told: str) -> None:
    (found,) = compared([BARE, BARE], replace(BARE, **change)).differs  # type: ignore[arg-type]
    assert found.startswith(told)


def test_the_documented_exit_status_is_no_difference() -> None:
    found = compared([BARE, BARE], replace(BARE, statuses=(2,), err=("note\nvalgap: nothing recorded\n",)))
    assert found.differs == () and found.nothing_recorded


def test_texts_of_another_shape_cannot_be_compared() -> None:
    assert text_difference(["a 1\n", "a 1\nb\n"], "c", with_words=False) == ("", True)


def test_files_are_seen_with_what_they_hold(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("1")
    (tmp_path / "y").symlink_to("a/x")
    before = files_of(tmp_path)
    assert before["y"] == "link to a/x" and before["a"] == "folder" and set(before) == {"a", "a/x", "y"}
    (tmp_path / "a" / "x").write_text("2")
    assert files_of(tmp_path)["a/x"] != before["a/x"]


LOOKS = """
import atexit, sys
print(__name__, __file__, sys.argv, sys.path[0], sys.modules["__main__"].__dict__ is globals())
atexit.register(print, "handler", file=sys.stderr)
if sys.argv[1] == "exit": sys.exit("a word")
if sys.argv[1] == "fail": raise ValueError("no")
"""
FORKED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {benchmarks!r})
import os, forks
here = Path.cwd()
pid = forks.start(["program.py", sys.argv[1]], here, dict(os.environ), here / "out", here / "err")
print(forks.wait(pid, time.monotonic() + 60))
"""


@pytest.mark.parametrize("how", ["end", "exit", "fail"])
def test_a_fork_runs_a_program_as_python_does(how: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(LOOKS)
    bare = subprocess.run([sys.executable, "program.py", how], cwd=tmp_path, capture_output=True, text=True, check=False)
    command = [sys.executable, "-c", FORKED.format(benchmarks=BENCHMARKS), how]
    forked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, env={**os.environ})
    assert int(forked.stdout) == bare.returncode
    assert (tmp_path / "out").read_text() == bare.stdout
    assert (tmp_path / "err").read_text() == bare.stderr
