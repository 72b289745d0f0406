"""The bench of hostile inputs: the same input for the same number, and every kind of unsound outcome is seen as one."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from hostile import names, pictures, texts, trial
from hostile.trial import CANARY, READ, REFUSED, Kind, Trial, UnsoundError, clean, refused, tried

from valgap.errors import DataError


def raising(error: BaseException) -> Callable[[], object]:
    def act() -> object:
        raise error

    return act


def spin(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


@pytest.mark.parametrize(
    ("act", "came"),
    [
        (lambda: READ, READ),
        (lambda: refused(raising(DataError("no such thing"))), REFUSED),
        (lambda: refused(raising(KeyError("x"))), "KeyError: 'x'"),
        (lambda: time.sleep(5), "no answer within"),
        (lambda: spin(5), "no answer within"),
        (lambda: Path(CANARY).touch(), "something was executed"),
        (lambda: Path("mine.txt").write_text("other"), "changed: "),
        (lambda: Path("mine.txt").unlink(), "changed: "),
        (lambda: clean("\x1b[2J", "the line"), "UnsoundError: '\\x1b' in the line"),
        (lambda: clean("\u202egpj", "the line"), "UnsoundError"),
    ],
)
def test_outcomes(act: Callable[[], str], came: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trial, "MOST_S", 0.2)

    def make(draw: random.Random, folder: Path) -> Trial:
        (folder / "mine.txt").write_text("mine")
        return Trial("one", act)

    outcome = tried(Kind("one", "", 1, make), 0, tmp_path)
    assert outcome.came.startswith(came)
    assert outcome.sound == (came in (READ, REFUSED))


def test_the_status_of_a_command_counts() -> None:
    assert trial.command("explain") == READ
    assert trial.command("explain", "no such cause") == REFUSED
    with pytest.raises(UnsoundError, match="exit status 2"):
        trial.command("explain", "no such cause", allowed=(0,))


def test_the_same_number_gives_the_same_input() -> None:
    for make in (pictures.hostile, names.name, texts.event):
        one, other = (make(random.Random("image 7")) for _ in range(2))
        assert one == other
    assert len({pictures.hostile(random.Random(f"image {n}")) for n in range(50)}) > 40


def test_names_can_be_given_to_files(tmp_path: Path) -> None:
    draw = random.Random(0)
    for _ in range(200):
        (tmp_path / f"{names.name(draw)}.jpg").touch()
