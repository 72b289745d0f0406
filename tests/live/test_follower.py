"""The process that judges: when it looks, how much time it takes, and what of a record that goes on it reads."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from valgap.errors import StoppedOnWarning
from valgap.live.follower import FREE, SHARE, Follower, Growth, is_there
from valgap.record.events import ended_passes
from valgap.seams.hosting.live import Live, interrupt, words_of


def line(kind: str, **body: object) -> bytes:
    return json.dumps({"t": kind, "at": 0.0, **body}, separators=(",", ":")).encode() + b"\n"


def test_growth_counts_what_is_worth_a_judgement(tmp_path: Path) -> None:
    growth = Growth(tmp_path)
    assert growth.look() == 0
    first, second = tmp_path / "events.jsonl", tmp_path / "parts" / "rank-1.jsonl"
    second.parent.mkdir()
    steps = [
        (first, line("header") + line("pass_begin"), 0), (first, line("part"), 1), (first, line("part"), 1),
        (first, line("pass_end")[:-5], 1), (first, line("pass_end")[-5:], 2), (second, line("header"), 2),
        (second, line("pass_begin"), 1), (second, line("pass_end") * 2, 2), (first, line("pass_end"), 3),
        (tmp_path / "parts" / "child-7.jsonl", line("pass_end"), 4),
    ]  # fmt: skip
    for file, text, expected in steps:
        with file.open("ab") as stream:
            stream.write(text)
        assert growth.look() == expected, (file.name, text)
        assert not growth.ended
    first.write_bytes(first.read_bytes() + line("end"))
    growth.look()
    assert growth.ended


def test_after_the_first_judgements_a_share_of_the_time_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"wall": 0.0, "own": 0.0}
    monkeypatch.setattr(time, "monotonic", lambda: clock["wall"])
    monkeypatch.setattr(time, "process_time", lambda: clock["own"])
    (tmp_path / "events.jsonl").write_bytes(line("header"))
    follower = Follower(tmp_path, os.getpid())
    judged_s = 0.0

    def costly(folder: Path, known: object) -> list[object]:
        clock["own"] += 2.0
        return []

    monkeypatch.setattr("valgap.live.judging.warnings_of", costly)
    for _ in range(1000):
        clock["wall"] += 1.0
        if follower._may():
            follower._judge()
            judged_s += 2.0
    assert judged_s - FREE * 2.0 == pytest.approx(SHARE * 1000, abs=2.0)


def test_a_record_that_goes_on_ends_before_its_first_open_pass() -> None:
    def events(*told: tuple[str, int]) -> list[dict[str, object]]:
        return [{"t": kind, "after_pass" if kind == "printed" else "pass": number} for kind, number in told]

    begun = events(("pass_begin", 0), ("part", 0), ("printed", 0))
    assert ended_passes(begun) == begun, "of the first pass, what there is of it"
    one = events(("pass_begin", 0), ("pass_end", 0), ("state", 0), ("printed", 0))
    more = events(("pass_begin", 1), ("part", 1), ("printed", 1), ("pass_begin", 2), ("pass_end", 2), ("printed", 2))
    assert ended_passes([*one, *more]) == one
    assert ended_passes(one) == one
    two = [*one, *events(("pass_begin", 1), ("pass_end", 1), ("state", 1), ("printed", 1))]
    assert ended_passes(two, 2) == two and ended_passes(two, 1) == one and ended_passes(two, 0) == one[:0]
    late = events(("pass_begin", 0), ("part", 0), ("pass_begin", 1), ("pass_end", 1), ("printed", 1))
    assert ended_passes(late) == late[:2]


def test_a_warning_is_told_once_and_ends_the_program_once(tmp_path: Path) -> None:
    heard: list[str] = []
    live = Live(tmp_path, lambda warning: heard.append(str(warning.get("code"))), stop=interrupt)
    live.look()
    file = tmp_path / "live.jsonl"
    file.write_text('{"error": "Traceback"}\nnot json\n{"code": "EVA501", "wh')
    live._next = 0.0
    live.look()
    assert heard == ["None"], "a line is told when it is whole; a fault of ours ends nothing"
    with file.open("a") as stream:
        stream.write('at": "x"}\n')
    live._next = 0.0
    with pytest.raises(StoppedOnWarning):
        live.look()
    live._next = 0.0
    live.look()
    assert heard == ["None", "EVA501"] and live.stopped_by == "EVA501"


def test_words_hold_no_control_characters() -> None:
    lines = words_of({"code": "PRE201", "name": "x", "what": "a\x1b[2Jb\nc", "why": ["d\re"], "remedy": "f", "epoch": 0})
    assert all(text.isprintable() and text.startswith("valgap: ") for text in lines)
    assert "in the first epoch" in lines[0] and "a\\x1b[2Jb\\nc" in lines[1]


def test_a_process_that_has_ended_is_not_there() -> None:
    assert is_there(os.getpid())
    child = os.spawnlp(os.P_NOWAIT, "true", "true")
    until = time.monotonic() + 10
    while is_there(child) and time.monotonic() < until:
        time.sleep(0.01)
    assert not is_there(child), "though nobody has asked how it ended"
    os.waitpid(child, 0)
    assert not is_there(child)
