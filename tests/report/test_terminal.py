"""One screen, no colours but on a terminal, nothing of the user's that could move a cursor."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from tests.report.pages import diagnosis, finding, record
from valgap.exhibits import gather
from valgap.exhibits.answer import two_sentences
from valgap.report.as_html import diagnosis_to_html
from valgap.report.as_json import diagnosis_to_json
from valgap.report.record_view import show_record
from valgap.report.terminal import show_briefly, show_details, show_diagnosis
from valgap.types import Accuracy, Closing, Diagnosis, LedgerLine, LossParts, Measured, Proposal, StageLine

EVIL = "a\x1b]0;owned\x07\x1b[2J[red]\r\nb"


def shown(show: object, *arguments: object, terminal: bool = False) -> str:
    stream = io.StringIO()
    assert callable(show)
    show(*arguments, Console(file=stream, width=80, force_terminal=terminal, legacy_windows=False))
    return stream.getvalue()


@pytest.fixture(scope="module")
def typical(tmp_path_factory: pytest.TempPathFactory) -> Diagnosis:
    run = record(tmp_path_factory.mktemp("terminal"))
    long = finding(summary="98 statistics of frozen BatchNorm layers moved during training", remedy="hold them still; " * 8)
    return diagnosis(run, ("MOD302", long), ("PRE201", long), ("EVA501", long))


def test_what_more_time_would_decide_is_told(typical: Diagnosis) -> None:
    later = replace(typical, budget_s=120.0, proposals=(Proposal("DAT103", 41.0), Proposal("TRN401", 400.0)))
    assert "50 s more would decide DAT103, as things stand: --budget 3m" in shown(show_diagnosis, later)
    longer = replace(later, proposals=later.proposals[1:])
    assert "7 min more would decide TRN401, as things stand: --budget 9m" in shown(show_diagnosis, longer)
    assert "more would decide" not in shown(show_diagnosis, typical)
    assert diagnosis_to_json(later)["proposals"][0] == {"code": "DAT103", "seconds": 41.0}


def test_a_typical_run_fits_one_screen(typical: Diagnosis) -> None:
    for one in (typical, replace(typical, ledger=(), experiments=None)):
        lines = shown(show_diagnosis, one).splitlines()
        assert len(lines) <= 24 and max(map(len, lines)) <= 80
        for word in ("batchnorm_drift", "+12.4", "remedy:", "ruled out"):
            assert word in "\n".join(lines), word
    assert "with every confirmed remedy" in shown(show_diagnosis, typical)
    assert "3 seeds, 100 validation images" in " ".join(shown(show_diagnosis, typical).split()), "what the verdicts rest on"


def test_stages_in_a_line_and_in_a_table(typical: Diagnosis) -> None:
    lines = (
        StageLine(
            "read_val", Measured(23.1, 12.0, 34.0), Measured(0.4, 0.1, 0.7), "at fault", 0.9, False, ("STG604",), "val is turned"
        ),
        StageLine("draw", None, None, "sound", 0.0, False, (), "each is drawn"),
        StageLine("measure", None, None, "unknown", 0.0, False, (), "", missing="a printed accuracy"),
    )
    staged = replace(typical, stages=lines)
    brief = shown(show_diagnosis, staged)
    assert "stages at fault: read_val; sound: draw; not compared: measure" in brief and len(brief.splitlines()) <= 24
    assert "valgap diagnose" in brief or staged.images is not None
    whole = shown(show_details, staged)
    assert "+23.1" in whole and "reading validation images" in whole and "needs a printed accuracy" in whole


def test_the_loss_stands_beside_the_points(typical: Diagnosis) -> None:
    lines = (
        LedgerLine("batchnorm_drift", 12.4, 7.5, 17.8, stage="update", nats=Measured(0.31, 0.2, 0.4)),
        LedgerLine("reading training images", -3.0, -5.0, -1.0, "better than the plain way", "gain", "read_train"),
        LedgerLine("overconfidence", 0.0, 0.0, 0.0, "one temperature", "confidence", "loss", Measured(0.4, 0.3, 0.5)),
    )
    parts = LossParts(1.2, Measured(0.4, 0.3, 0.5), 0.8, 100)
    one = replace(typical, ledger=lines, loss=parts, judged=tuple(j for j in typical.judged if j.check.code != "PRE201"))
    text = shown(show_diagnosis, one)
    assert "validation loss 1.20 nats: 0.80, and 0.40 that one temperature takes off" in text
    other = shown(show_diagnosis, replace(one, loss=replace(parts, recorded=1.7)))
    assert "validation loss 1.70 nats as recorded; scored again in eval mode 1.20 nats: 0.80" in " ".join(other.split())
    assert "+12.4" in text and "loss -0.31" in text and "loss -0.40" in text and len(text.splitlines()) <= 24
    reached = 100 * typical.validation.value + 12.4 if typical.validation is not None else 0.0
    assert f"{reached:.1f} %" in text, "a gain is no remedy"


def test_what_no_re_run_has_shown_is_not_reached(typical: Diagnosis) -> None:
    tried = tuple(replace(j, verdict="inconclusive" if j.effect is not None else j.verdict) for j in typical.judged)
    rest = (LedgerLine("unexplained", 23.0, note="up to the 98 % that a probe reaches", kind="rest"),)
    one = replace(typical, judged=tried, ledger=rest)
    for text in (shown(show_diagnosis, one), shown(show_details, one), diagnosis_to_html(one, gather(one)), two_sentences(one)):
        assert "with every confirmed remedy" not in text and "the result is" not in text


def test_why_a_cause_was_not_decided_is_told_whole(typical: Diagnosis) -> None:
    why = "the time budget is too small; --budget 12m would do for the likeliest cause of them all"
    judged = tuple(replace(j, verdict="inconclusive", reason=f"not tried: {why}") for j in typical.judged)
    lines = shown(show_diagnosis, replace(typical, judged=judged)).splitlines()
    assert max(map(len, lines)) <= 80 and why in " ".join(" ".join(lines).split())


def test_everything_and_one_line_each(typical: Diagnosis) -> None:
    whole = shown(show_details, typical)
    assert "EVA507 validation_too_small" in whole and "not judged" in whole and "valgap explain MOD302" in whole
    assert shown(show_briefly, typical).splitlines()[0] == "MOD302 batchnorm_drift +12.4 confirmed"


def test_colours_on_a_terminal_only(typical: Diagnosis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[" not in shown(show_diagnosis, typical)
    assert "\x1b[1;31m" in shown(show_diagnosis, typical, terminal=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "31m" not in shown(show_diagnosis, typical, terminal=True)


def test_names_cannot_move_the_cursor(tmp_path: Path) -> None:
    run = record(tmp_path)
    bad = replace(run, header={**run.header, "script": EVIL}, path=EVIL, stopped=EVIL, recorder_errors=(EVIL,))
    spoiled = finding(summary=EVIL, remedy=EVIL, subjects=(EVIL,))
    one = diagnosis(bad, ("MOD302", spoiled))
    for text in (shown(show_details, one), shown(show_diagnosis, one), shown(show_record, bad)):
        assert "\x1b" not in text and "\x07" not in text and "\r" not in text
        assert "[red]" in text


@pytest.mark.parametrize(("probe", "words"), [(0.95, "reaches 95.0%"), (0.2, "does no better: 20.0%")])
def test_a_sound_run_says_what_limits_it(typical: Diagnosis, probe: float, words: str) -> None:
    run = replace(typical.run, closing=Closing(numbers={"probe_final": probe}))
    accuracy = Accuracy(0.7, 0.63, 0.76, 186)
    text = shown(show_diagnosis, replace(typical, run=run, judged=(), ledger=(), experiments=None, validation=accuracy))
    assert "Nothing is broken" in text and words in text


def test_points_that_no_cause_explains_are_not_called_sound(typical: Diagnosis) -> None:
    sound = replace(typical, judged=(), ledger=(), experiments=None)
    assert "Nothing is broken" in two_sentences(sound)
    line = StageLine("update", Measured(36.0, 28.0, 43.0), None, "unknown", 0.4, False, (), "", missing="a training at its end")
    text = two_sentences(replace(sound, stages=(line,)))
    assert "Nothing is broken" not in text and "36 points are open at the updates" in text and "a training at its end" in text
    near = replace(line, points=Measured(6.0, -2.0, 14.0))
    assert "Nothing is broken" in two_sentences(replace(sound, stages=(near,)))


def test_a_part_of_a_run_is_never_sound_as_a_whole(typical: Diagnosis) -> None:
    part = replace(typical, judged=(), ledger=(), experiments=None, unseen=("validation was seen on 16 of 500 images",))
    text = shown(show_diagnosis, part)
    assert "Nothing is broken" not in text and "No fault shows" in text and "16 of 500 images" in " ".join(text.split())
    assert "Nothing is broken" not in two_sentences(part) and "16 of 500" in two_sentences(part)
    assert "Nothing is broken" in two_sentences(replace(part, unseen=()))


def test_shares_of_few_images_carry_their_number_or_are_left_out(typical: Diagnosis) -> None:
    known = replace(typical, train_reported=0.4375, train_rescored=0.0, reported=Accuracy(0.4375, 0.28, 0.61, 32))
    four = replace(known, rescored=Accuracy(0.0, 0.0, 0.49, 4))
    text = shown(show_diagnosis, four)
    assert "43.8% (32 images, 28% .. 61%) as the last epoch ran" in text and "re-scored" not in text
    assert "0.0% of" not in two_sentences(four) and "43.8% of 32 training images" in two_sentences(four)
    forty = shown(show_diagnosis, replace(four, rescored=Accuracy(0.0, 0.0, 0.09, 40)))
    assert "0.0% (40 images, 0% .. 9%) re-scored" in " ".join(forty.split())
    many = shown(show_diagnosis, replace(four, rescored=Accuracy(0.9, 0.88, 0.92, 2000), train_rescored=0.9))
    assert "90.0% re-scored like validation" in " ".join(many.split())
