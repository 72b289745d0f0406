"""Arms are as long as their cause needs: what comes late is tried whole or not at all, what comes early may be cut short."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.checks.cases import healthy
from tests.experiments.test_interventions import spec
from tests.experiments.test_joint import table
from tests.processes import ForkedPopen
from valgap.checks import CATALOGUE
from valgap.experiments.arm import SPEC_FILE, ArmSpec
from valgap.experiments.arm_result import ArmResult
from valgap.experiments.contest import Contest, first_looks
from valgap.experiments.lab import Group, Lab
from valgap.experiments.plan import RESERVE, SEEDS, Length, needed_length
from valgap.experiments.runner import Runner
from valgap.experiments.suspects import LONGER, Suspect, fit, like_before, need_of
from valgap.experiments.trial import Trial
from valgap.types import Finding, Intervention, Judged, RunRecord

EPOCHS, START_S, EPOCH_S = 10, 10.0, 20.0
WHOLE_S = START_S + EPOCHS * EPOCH_S


def suspect(name: str, points: float = 10.0) -> Suspect:
    check = next(c for c in CATALOGUE if c.name == name)
    finding = Finding("", points, 0.9, (), "")
    return Suspect(Judged(check, finding), finding, Intervention(f"treat {name}"))


EARLY, LATE = suspect("scrambled_pixels"), suspect("class_imbalance")


def recorded() -> RunRecord:
    """Ten epochs, each with its validation."""
    pair = healthy().run.passes[:2]
    passes = tuple(replace(p, index=2 * i + j, seconds=EPOCH_S / 2) for i in range(EPOCHS) for j, p in enumerate(pair))
    return healthy(passes=passes, seconds=WHOLE_S).run


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> RunRecord:
    """The same, one arm at a time."""
    monkeypatch.setattr("valgap.experiments.plan.arms_in_parallel", lambda _: 1)
    return recorded()


def budget(*seconds: float) -> float:
    """In which arms of so many seconds, each in all seeds, just fit."""
    return (SEEDS * sum(seconds) + 0.1) / RESERVE


def test_what_shows_late_is_said_by_its_check_unless_the_recorded_weights_show_it() -> None:
    assert LATE.late and not EARLY.late and EARLY.early and not LATE.early
    assert suspect("wrong_train_labels").late, "images alone tell it, but what it costs comes with learning by heart"
    assert replace(LATE, treatment=Intervention("score_renamed", {"mapping": {}})).late == ""
    best = replace(suspect("overtraining"), treatment=Intervention("score_best_epoch"))
    assert best.late and not best.early, "it has no arms, and needs all epochs of the control's"


def test_the_control_goes_on_for_what_shows_late_and_others_stop_early(run: RunRecord) -> None:
    need = need_of([LATE, EARLY, EARLY, EARLY])
    assert (need.long, need.short) == (3 * SEEDS, 3 * SEEDS), "control, the late one and both together"
    short = START_S + 2 * EPOCH_S
    both = needed_length(run, need, budget(*[WHOLE_S] * 3, *[short] * 3))
    assert both is not None and both.whole() and (both.epochs, both.short, both.short_s) == (0, 2, short)
    alike = needed_length(run, need, budget(*[WHOLE_S] * 6))
    assert alike is not None and alike.whole() and alike.short == 0
    least = START_S + 8 * EPOCH_S
    nearly = needed_length(run, need, budget(*[least] * 3, *[short] * 3))
    assert nearly is not None and (nearly.epochs, nearly.short) == (8, 2) and nearly.long_enough(EPOCHS)
    assert needed_length(run, need, budget(least, least, least)) is None
    few = START_S + 3 * EPOCH_S
    assert needed_length(run, need_of([EARLY]), budget(few, few)) == Length(3, 1.0, few), "nothing late: all alike"


def test_all_of_a_program_that_was_stopped_is_long_enough() -> None:
    assert Length(1, 1.0, 1.0, as_recorded=True).long_enough(2), "its second epoch was never whole"
    assert (
        not Length(1, 1.0, 1.0).long_enough(2) and not Length(0, 0.5, 1.0).long_enough(2) and Length(0, 0.8, 1.0).long_enough(2)
    )


def test_what_shows_late_is_left_out_where_its_arms_would_be_cut_short(run: RunRecord) -> None:
    few = budget(START_S + 3 * EPOCH_S, START_S + 3 * EPOCH_S)
    chosen, length, (left,) = fit(run, [LATE, EARLY], few)
    assert chosen == [EARLY] and length is not None and length.epochs == 3
    assert left.check is LATE.judged.check and "the whole training" in left.reason and "--budget 20m" in left.reason
    told = float(left.reason.split("--budget ")[1].split("m")[0]) * 60
    assert fit(run, [LATE], told)[0] == [LATE] and fit(run, [LATE], told - 120)[0] == []


def test_the_weightier_side_has_the_time_that_is_too_short_for_both(run: RunRecord) -> None:
    enough = budget(WHOLE_S, WHOLE_S)
    heavy, light = suspect("class_imbalance", 30.0), suspect("class_imbalance", 5.0)
    assert fit(run, [heavy, EARLY], enough)[0] == [heavy]
    chosen, length, left = fit(run, [EARLY, light], enough)
    assert chosen == [EARLY] and length is not None and length.whole() and len(left) == 1


def test_a_late_cause_that_can_never_fit_takes_no_place_from_others(run: RunRecord) -> None:
    longer = Suspect(suspect("too_few_epochs", 40.0).judged, LATE.finding, LONGER)
    scored = replace(suspect("overtraining", 40.0), treatment=Intervention("score_best_epoch"))
    enough = budget(WHOLE_S, WHOLE_S)
    chosen, _, (left,) = fit(run, [longer, scored, LATE], enough)
    assert chosen == [scored, LATE] and left.check is longer.judged.check
    few = budget(START_S + 3 * EPOCH_S, START_S + 3 * EPOCH_S)
    assert fit(run, [scored, EARLY], few)[0] == [EARLY], "the best epoch is one of all of them"


def test_control_arms_of_an_earlier_call_are_used_where_they_are_long_enough(tmp_path: Path) -> None:
    base = ArmSpec("a.py", None, ["a.py"], "here", 0, 0, 1.0, [0], [1])
    (tmp_path / "old" / "record").mkdir(parents=True)
    (tmp_path / "old" / "record" / "result.json").write_text("{}")
    (tmp_path / "old" / SPEC_FILE).write_text(json.dumps(replace(base, epochs=6).to_json()))
    new = Length(0, 1.0, 1.0)
    assert like_before(tmp_path, base, new, EPOCHS).epochs == 6
    assert like_before(tmp_path, base, new, EPOCHS, late=True) == new
    assert like_before(tmp_path, base, replace(new, short=6), EPOCHS).epochs == 0


class Learning:
    """Stands for Runner: treated arms gain at once, the control learns for ever."""

    def __init__(self) -> None:
        self.parallel, self.expected_s, self.deadline = 2, 1.0, time.monotonic() + 1e6
        self.asked: list[ArmSpec] = []

    def run(self, specs: Any) -> list[ArmResult]:
        self.asked += specs
        return [self._one(s) for s in specs]

    def _one(self, spec: ArmSpec) -> ArmResult:
        run = healthy().run
        pair, passes = (run.of_phase("train")[0], run.of_phase("validation")[0]), []
        for epoch in range(spec.epochs or EPOCHS):
            share = 0.4 + 0.05 * epoch + 0.3 * bool(spec.interventions)
            right = np.random.default_rng([spec.seed, epoch]).random(200) < share
            answers = table([0] * 200, [int(not r) for r in right], [float(not r) for r in right], [0.0] * 200)
            passes += [replace(pair[0], index=2 * epoch), replace(pair[1], index=2 * epoch + 1, samples=answers)]
        record = replace(run, passes=tuple(passes))
        return ArmResult(spec, record, passes[-1].samples, (1,) * len(spec.interventions), 1.0, None)


def lab_of(short: int) -> tuple[Lab, Learning]:
    runner = Learning()
    base = ArmSpec("train.py", None, ["train.py"], "here", 0, 0, 1.0, [0], [1])
    length = Length(0, 1.0, 10.0, short=short, short_s=2.5)
    given: Any = runner
    return Lab(recorded(), base, length, given, early=[EARLY.treatment]), runner


def test_short_arms_are_held_against_the_control_as_it_stood_then() -> None:
    lab, runner = lab_of(2)
    contest = Contest(lab, EARLY, 1)
    first_looks(lab, [contest])
    assert [(s.epochs, bool(s.interventions)) for s in runner.asked] == [(0, False), (2, True)] * SEEDS
    assert contest.judged.verdict == "confirmed" and contest.judged.effect is not None
    assert contest.judged.effect.value == pytest.approx(30.0, abs=8.0), "and not what the control learns afterwards"
    assert contest.judged.effect.trained == 2 / EPOCHS
    both = [EARLY.treatment]
    alone, none = lab.answers(both, both), lab.answers([], both)
    assert alone is not None and none is not None and len(runner.asked) == 2 * SEEDS, "the account needs no other arms"
    gain = np.mean([list(x.values()) for x in alone], (0, 1)) - np.mean([list(x.values()) for x in none], (0, 1))
    assert 100 * gain[0] == pytest.approx(contest.judged.effect.value)


def test_what_is_compared_with_something_late_is_whole() -> None:
    lab, runner = lab_of(2)
    late = LATE.treatment
    assert lab.short([EARLY.treatment]) and not lab.short([EARLY.treatment, late]) and not lab.short([])
    lab.answers([EARLY.treatment], [EARLY.treatment, late])
    assert [s.epochs for s in runner.asked] == [0] * (2 * SEEDS)
    assert not lab_of(0)[0].short([EARLY.treatment])
    assert (lab.trained([late]), lab.trained([EARLY.treatment])) == (1.0, 2 / EPOCHS)


@pytest.mark.parametrize("left_s", [0.5, 60.0])
def test_what_short_arms_prove_is_measured_in_whole_ones_where_there_is_time(left_s: float) -> None:
    lab, runner = lab_of(2)
    contest = Contest(lab, EARLY, 1)
    first_looks(lab, [contest])
    short = contest.judged.effect
    assert short is not None
    runner.deadline, begun = time.monotonic() + left_s, len(runner.asked)
    found = Trial(lab, [EARLY], [])._lengthened([(EARLY, short)], lab.control())
    if left_s < 1.0:
        assert found == [] and len(runner.asked) == begun and lab.short([EARLY.treatment])
        return
    ((_, whole),) = found
    assert [s.epochs for s in runner.asked[begun:]] == [0] * SEEDS and not lab.short([EARLY.treatment])
    assert (short.trained, whole.trained) == (2 / EPOCHS, 1.0) and whole.value < short.value, "the treated end at all right"
    assert "after 2 of 10 epochs" in lab.notes[-1]


def test_the_time_that_arms_take_goes_by_their_length() -> None:
    lab, _ = lab_of(2)
    whole = lab.specs(Group(seeds=2))
    short = lab.specs(Group((EARLY.treatment,), 3, short=True))
    assert [lab.weight(s) for s in (*whole, *short)] == [1.0, 1.0, 0.25, 0.25, 0.25]
    assert lab.seconds(whole) == 1.0 and lab.seconds(short) == 0.5 and lab.seconds([*whole, *short]) == 1.5
    assert lab.seconds([]) == 0.0


def test_a_control_that_goes_on_stood_where_one_of_fewer_epochs_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.Popen", ForkedPopen)
    runner = Runner(tmp_path / "arms", 2, time.monotonic() + 200)
    program = spec("")
    whole, ended = runner.run([program, replace(program, epochs=1)])
    assert whole.error is None and ended.error is None and ended.record is not None and ended.samples is not None
    lab = Lab(ended.record, program, Length(0, 1.0, 1.0, short=1, short_s=0.5), runner, early=[EARLY.treatment])
    (stood,) = lab._cut([whole])
    assert stood.correct() == ended.correct() and stood.losses() == ended.losses() != whole.losses()
