"""What a long pass tells where nobody watches a bar."""

from __future__ import annotations

import pytest

from valgap.cli.console import TOLD_EVERY_S, duration, lines_of_pass


def test_a_line_every_half_minute_with_the_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    tell = lines_of_pass(lambda: now[0])
    tell(40_000, 100_000)  # goes on where a killed one was: what was done then took no time now
    for second in range(1, 100):
        now[0] = float(second)
        tell(40_000 + 100 * second, 100_000)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == int(99 // TOLD_EVERY_S)
    assert lines[0] == "valgap: 43,000 of 100,000, about 10 min left"


def test_each_pass_begins_anew(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    tell = lines_of_pass(lambda: now[0])
    tell(1, 10)
    tell(10, 10)
    now[0] = 1000.0
    tell(1, 500)
    now[0] = 1040.0
    tell(201, 500)
    assert capsys.readouterr().err.splitlines() == ["valgap: 201 of 500, about 60 s left"]


def test_durations() -> None:
    assert [duration(s) for s in (40, 700, 12_000)] == ["40 s", "12 min", "3 h 20 min"]
