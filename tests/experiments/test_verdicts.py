"""Effects, verdicts, Shapley values, budgets: against simulation and worked examples."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.checks.cases import healthy
from valgap.checks import CATALOGUE
from valgap.errors import ValgapError
from valgap.experiments.arm import ArmSpec
from valgap.experiments.arm_result import ArmResult
from valgap.experiments.joint import Confirmed
from valgap.experiments.ledger import UNEXPLAINED, account
from valgap.experiments.placebo import has_placebo, placebo
from valgap.experiments.plan import (
    BESIDE,
    LEAST_REST_S,
    RESERVE,
    SIDE_BY_SIDE,
    Length,
    can_stop_early,
    choose_length,
    least_budget,
    parse_budget,
    recorded_epochs,
    rest_of_fork,
)
from valgap.experiments.prove import EASY, trains_easily
from valgap.experiments.scoring import rescored
from valgap.experiments.sequential import spent, spread
from valgap.experiments.suspects import Suspect, like_before
from valgap.experiments.trial import Trial
from valgap.experiments.verdicts import Compared, beats_placebo, judge_effect, measure
from valgap.stats import grouped_orders, paired_effect, sampled_shapley_values, shapley_values
from valgap.types import Accuracy, Closing, Diagnosis, Effect, Finding, Intervention, Judged, SampleTable


def simulated(draw: np.random.Generator, gain: float, seeds: int = 3, samples: int = 150, luck: float = 0.0) -> Compared:
    """Two arms whose images are answered by the same ability but for a gain; ``luck`` moves all images of one seed and arm."""
    ability = draw.normal(1.0, 1.5, samples)
    tables = []
    for more in (0.0, gain):
        lucky = luck * draw.normal(size=(seeds, 1))
        tables.append(ability + more + lucky + draw.normal(size=(seeds, samples)))
    right = tuple((z > 0).astype(float) for z in tables)
    loss = tuple(np.log1p(np.exp(-z)) for z in tables)
    return Compared((right[0], right[1]), (loss[0], loss[1]))


def first_seeds(arms: Compared, seeds: int) -> Compared:
    assert arms.loss is not None
    return Compared((arms.right[0][:seeds], arms.right[1][:seeds]), (arms.loss[0][:seeds], arms.loss[1][:seeds]))


@pytest.mark.parametrize("luck", [0.0, 0.5])
def test_without_effect_one_in_a_hundred_is_confirmed_however_many_looks_are_taken(luck: float) -> None:
    draw = np.random.default_rng(0)
    ever = 0
    covered = []
    for _ in range(300):
        arms = simulated(draw, 0.0, seeds=6, luck=luck)
        effects = [measure(first_seeds(arms, 2 + look), 1, look) for look in range(1, 5)]
        ever += any(judge_effect(e, float(np.sign(e.value) or 1)).verdict == "confirmed" for e in effects)
        covered.append(all(e.low <= 0 <= e.high for e in effects))
    assert ever <= 3
    assert np.mean(covered) >= 0.95, "the interval holds at every look at once"


def test_a_true_effect_is_found_and_covered() -> None:
    draw = np.random.default_rng(1)
    arms = [simulated(draw, 1.2) for _ in range(100)]
    truth = np.mean([100 * (a.right[1] - a.right[0]).mean() for a in arms])
    found = [measure(a, 1) for a in arms]
    assert np.mean([judge_effect(e, 1.0).verdict == "confirmed" for e in found]) > 0.85
    assert np.mean([e.low <= truth <= e.high for e in found]) >= 0.95


def test_close_seeds_by_chance_are_no_proof() -> None:
    """Two seeds of an effect that is all luck lie within a point of each other now and then."""
    table = np.zeros((2, 400))
    before, after = table.copy(), table.copy()
    before[0, :200], before[1, :204] = 1, 1
    after[0, :260], after[1, :261] = 1, 1
    value, low, _, _ = paired_effect(after - before)
    two = spread(before, after, 1.0)
    assert two.value == pytest.approx(value) and two.half_width(0.05) > 1.3 * (value - low)
    assert spent(1) + spent(2) + sum(spent(k) for k in range(3, 5000)) == pytest.approx(1.0, abs=1e-3)


def test_what_seeds_share_is_taken_out() -> None:
    draw = np.random.default_rng(3)
    ability, luck = draw.normal(size=(1, 300)), draw.normal(size=(4, 1))
    before = (ability + luck > 0).astype(float)
    after = (ability + luck + 0.4 > 0).astype(float)
    other = (ability + draw.normal(size=(4, 1)) + 0.4 > 0).astype(float)
    assert spread(before, after, 1.0).half_width(0.05) < 0.5 * spread(before, other, 1.0).half_width(0.05)


def test_the_loss_alone_can_confirm_and_then_says_so() -> None:
    draw = np.random.default_rng(2)
    z = draw.normal(2.5, 0.8, (3, 120))
    right = (z > 0).astype(float)
    loss = np.log1p(np.exp(-z))
    effect = measure(Compared((right, right), (loss + 0.3 + 0.1 * draw.normal(size=z.shape), loss)), 1)
    told = judge_effect(effect, 1.0)
    assert (told.verdict, told.rests_on, told.nats) == ("confirmed", "loss", "confirmed")
    assert told.points != "confirmed" and "rests on the loss alone" in told.reason
    assert judge_effect(effect, -1.0).verdict != "confirmed", "the other direction"
    small = measure(Compared((right, right), (loss + 0.02 + 0.001 * draw.normal(size=z.shape), loss)), 1)
    assert judge_effect(small, 1.0).nats == "refuted", "however sure, too little to be a cause"


def test_more_causes_tried_need_more_evidence() -> None:
    arms = simulated(np.random.default_rng(4), 0.6)
    assert measure(arms, 10).p_value == pytest.approx(min(1.0, 10 * measure(arms, 1).p_value), rel=1e-6)


def test_equal_arms_are_refuted_not_confirmed() -> None:
    value, low, high, p_value = paired_effect(np.zeros((3, 200)))
    assert (value, p_value) == (0.0, 1.0)
    assert (low, high) == (-0.015, 0.015)
    same = [Compared((np.zeros((3, n)), np.zeros((3, n))), None) for n in (200, 30)]
    assert [judge_effect(measure(a, 1), 1.0).verdict for a in same] == ["refuted", "inconclusive"]
    assert measure(same[0], 1).high == pytest.approx(1.5)
    assert math.isnan(paired_effect(np.zeros((3, 0)))[0])


def test_the_direction_counts() -> None:
    effect = Effect(-9.0, -14.0, -4.0, 0.001, 3, 150)
    assert judge_effect(effect, -1.0)[0] == "confirmed"
    assert judge_effect(effect, 1.0)[0] == "refuted"


def test_shapley_values_sum_and_share_interaction() -> None:
    worth = {frozenset(): 0.4, frozenset("a"): 0.5, frozenset("b"): 0.6, frozenset("ab"): 0.9}
    values = shapley_values("ab", worth.__getitem__)
    assert values["a"] == pytest.approx(0.2)
    assert values["b"] == pytest.approx(0.3)
    draw = np.random.default_rng(2)
    names = [str(i) for i in range(5)]
    table = {frozenset(c): float(draw.random()) for k in range(6) for c in itertools.combinations(names, k)}
    assert sum(shapley_values(names, table.__getitem__).values()) == pytest.approx(table[frozenset(names)] - table[frozenset()])


class Joint:
    """Answers of joint treatments on 200 samples, as if measured; some joint arms may have failed."""

    def __init__(self, worth: dict[str, int], missing: int = 0, together: int = 0) -> None:
        self.worth, self.missing, self.together = worth, missing, together
        self.asked: list[frozenset[str]] = []

    def answers(
        self, treatments: Sequence[Intervention], among: Sequence[Intervention] = ()
    ) -> list[dict[str, tuple[float, float]]] | None:
        names = frozenset(t.name for t in treatments)
        self.asked.append(names)
        if 1 < len(names) < len(self.worth) and len(self.asked) > self.missing > 0:
            return None
        right = 40 + sum(self.worth[n] for n in names) + (self.together if len(names) == len(self.worth) else 0)
        return [{f"{i}.jpg": (float(i < right + seed), 1.0 + (i >= right)) for i in range(200)} for seed in range(3)]


def confirmed(worth: dict[str, int], kind: str = "") -> list[Confirmed]:
    return [
        Confirmed(n, Intervention(kind or n, {"n": n} if kind else {}), Effect(v / 2, v / 2 - 5, v / 2 + 5, 0.001, 3, 200))
        for n, v in worth.items()
    ]


def diagnosed(accuracy: float, **closing: float) -> Diagnosis:
    run = healthy(closing=Closing(numbers=closing)).run
    return Diagnosis(run, (), 0.98, 0.99, Accuracy(accuracy, 0.34, 0.49, 200))


def test_the_ledger_sums_to_the_last_digit() -> None:
    worth = {"one": 37, "two": 55}
    lines = account(diagnosed(0.41234, probe_final=0.9333), Joint(worth), confirmed(worth)).lines
    assert [line.name for line in lines] == ["one", "two", UNEXPLAINED]
    assert [line.points for line in lines[:2]] == [18.5, 27.5]
    assert round(41.2 + sum(line.points for line in lines), 1) == 93.3
    assert all(line.low is not None and line.low < line.points < line.high for line in lines[:2])
    assert account(diagnosed(0.41234, probe_final=0.9333), Joint({}), []).lines[0].points == pytest.approx(93.3 - 41.2)


def test_an_interaction_is_shared_and_its_interval_measured() -> None:
    worth = {"one": 20, "two": 30}
    lines = account(diagnosed(0.2), Joint(worth, together=40), confirmed(worth)).lines
    assert [line.points for line in lines] == [20.0, 25.0]
    assert lines[0].low is not None and lines[0].low < 20 < lines[0].high


def test_three_causes_with_missing_joint_arms_use_the_orders_that_are_there() -> None:
    worth = {"a": 10, "b": 20, "c": 30}
    lab = Joint(worth, missing=7)  # both first orders are measured, the rest fails
    lines = account(diagnosed(0.2), lab, confirmed(worth)).lines
    assert [line.points for line in lines] == [5.0, 10.0, 15.0]
    assert not any(line.note for line in lines)
    alone = account(diagnosed(0.2), Joint(worth, missing=1), confirmed(worth)).lines
    assert [line.note for line in alone] == ["alone: joint re-runs are missing"] * 3


def test_many_causes_are_sampled() -> None:
    worth = {f"cause{i}": 4 * i + 2 for i in range(8)}
    lab = Joint(worth)
    lines = account(diagnosed(0.2), lab, confirmed(worth)).lines
    assert [line.points for line in lines] == [v / 2 for v in worth.values()]
    assert len(set(lab.asked)) < 2**6


def test_sampled_values_are_those_of_all_orders() -> None:
    draw = np.random.default_rng(5)
    names = ["a", "b", "c", "d"]
    table = {frozenset(c): float(draw.random()) for k in range(5) for c in itertools.combinations(names, k)}
    exact = shapley_values(names, table.__getitem__)
    everything = sampled_shapley_values(list(itertools.permutations(names)), table.get)
    assert everything == pytest.approx(exact)
    some = sampled_shapley_values(grouped_orders([[n] for n in names], 4), table.get)
    assert some is not None
    assert sum(some.values()) == pytest.approx(table[frozenset(names)] - table[frozenset()])
    assert sampled_shapley_values([("a", "b")], lambda s: None) is None


def test_a_metric_that_is_computed_wrongly_is_a_line_of_its_own() -> None:
    check = next(c for c in CATALOGUE if c.code == "EVA503")
    finding = Finding("the printed accuracy 0.5 is a mean of batch means", -8.76, 0.85, (), "")
    told = replace(diagnosed(0.41234, probe_final=0.5), judged=(Judged(check, finding),))
    lines = account(told, Joint({}), []).lines
    assert [(line.name, line.kind, line.points) for line in lines] == [
        ("miscomputed_metric", "measurement", -8.8),
        (UNEXPLAINED, "rest", 8.8),
    ]


@pytest.mark.parametrize(("name", "misled"), [("affine", True), ("score_renamed", True), ("score_best_epoch", False)])
def test_the_probe_promises_nothing_where_it_saw_the_same_fault(name: str, misled: bool) -> None:
    treatment = Intervention(name, {"phase": "validation"} if name == "affine" else {})
    cause = Confirmed("one", treatment, Effect(18.5, 10.0, 25.0, 0.001, 3, 200))
    lines = account(diagnosed(0.41234, probe_final=0.15), Joint({}), [cause]).lines
    assert [line.name for line in lines] == (["one"] if misled else ["one", UNEXPLAINED])


def arm_result(right: Sequence[bool], **rescores: Sequence[bool]) -> ArmResult:
    """An arm that answered so in its last validation, and so when its finished model was scored again."""
    run = healthy().run

    def table(answers: Sequence[bool]) -> SampleTable:
        target = np.zeros(len(answers), np.int32)
        prediction = np.where(np.asarray(answers), 0, 1).astype(np.int32)
        number, zero = np.arange(len(answers), dtype=np.int32), np.zeros(len(answers), np.float32)
        return SampleTable(number, target, prediction, zero, zero, zero, number // 32, zero)

    closing = Closing(rescores={k.replace("_", " "): table(v) for k, v in rescores.items()})
    spec = ArmSpec("train.py", None, ["train.py"], "here", 0, 0, 1.0, [0], [1])
    return ArmResult(spec, replace(run, closing=closing), table(right), (), 1.0, None)


def test_a_finished_model_must_repeat_what_the_program_validated() -> None:
    half = [i % 2 == 0 for i in range(100)]
    other = [i % 2 == 1 for i in range(100)]
    better = [i % 10 != 0 for i in range(100)]
    same = rescored([arm_result(half, own=half, under_0=better)], 0, random=False)
    assert same is not None and same[1][0].accuracy == 0.9
    assert rescored([arm_result(half, own=other, under_0=better)], 0, random=False) is None
    drawn = rescored([arm_result(half, own=other, under_0=better)], 0, random=True)
    assert drawn is not None and drawn[0][0].accuracy == 0.5 and drawn[1][0].accuracy == 0.9
    assert rescored([arm_result(half, own=better, under_0=better)], 0, random=True) is None
    assert rescored([arm_result(half, own=half)], 0, random=True) is None


class Arms:
    """Stands for Lab: how many of 100 answers are right under each set of treatments, in three seeds."""

    def __init__(self, right: dict[str, int]) -> None:
        self.right = right

    def results(self, treatments: Sequence[Intervention], among: Sequence[Intervention] = ()) -> list[ArmResult]:
        count = self.right["".join(sorted(t.name for t in treatments))]
        return [arm_result([i < count for i in range(100)])] * 3

    def trained(self, treatments: Sequence[Intervention]) -> float:
        return 1.0


def looked_at_again(right: dict[str, int]) -> Trial:
    """A trial whose suspects a and b gained too little alone, after the second look."""
    check = {"a": "MOD302", "b": "MOD306"}
    finding = Finding("", 5.0, 0.9, (), "")
    suspects = []
    for name, code in check.items():
        effect = Effect(right[name] - right[""], -5.0, 9.0, 0.4, 3, 100)
        judged = Judged(next(c for c in CATALOGUE if c.code == code), finding, "inconclusive", effect)
        suspects.append(Suspect(judged, finding, Intervention(name, {})))
    lab: Any = Arms(right)
    trial = Trial(lab, suspects, [s.judged for s in suspects])
    assert trial.second_look([]) == [
        (s, j.effect) for s, j in zip(suspects, trial.settled, strict=True) if j.verdict == "confirmed"
    ]
    return trial


def test_two_causes_that_each_suffice_are_found_together() -> None:
    both = looked_at_again({"": 50, "a": 52, "b": 53, "ab": 80})
    assert [j.verdict for j in both.settled] == ["confirmed", "confirmed"]
    assert [round(j.effect.value, 6) for j in both.settled if j.effect is not None] == [27.0, 28.0]
    assert "the other suspected causes are removed" in both.settled[0].reason
    neither = looked_at_again({"": 50, "a": 52, "b": 53, "ab": 54})
    assert [j.verdict for j in neither.settled] == ["inconclusive", "inconclusive"]


def test_a_placebo_must_be_beaten() -> None:
    effect = Effect(9.0, 4.0, 14.0, 0.001, 3, 150)
    better = beats_placebo(Effect(8.0, 3.0, 13.0, 0.002, 3, 150), effect, 1.0)
    assert better == ("confirmed", "as many samples at random +1.0")
    same = beats_placebo(Effect(1.0, -4.0, 6.0, 0.6, 3, 150), effect, 1.0)
    assert same[0] == "inconclusive" and "+8.0" in same[1]


def test_a_placebo_draws_as_many_of_the_same_classes() -> None:
    run = healthy().run
    dataset = run.datasets[0]
    assert dataset.targets is not None
    chosen = [0, 4, 8, 1]  # three of class 0, one of class 1
    drop = Intervention("drop_samples", {"positions": chosen})
    assert has_placebo(drop) and not has_placebo(Intervention("drop_samples", {"positions": chosen, "phase": "validation"}))
    drawn = [placebo(drop, run, seed).settings["positions"] for seed in range(3)]
    for positions in drawn:
        assert isinstance(positions, list)
        assert not set(positions) & set(chosen)
        assert sorted(dataset.targets[positions].tolist()) == [0, 0, 0, 1]
    assert drawn[0] != drawn[1] != drawn[2]
    assert placebo(drop, run, 1).settings == {"phase": "train", "positions": drawn[1]}
    names = [run.sample_names[int(dataset.sample[i])] for i in chosen] if dataset.sample is not None else []
    assert placebo(Intervention("drop_samples", {"names": names}), run, 1).settings == {"phase": "train", "positions": drawn[1]}


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1h", 3600), ("2", 120), ("0", 0), ("0.5 h", 1800)])
def test_budgets(text: str, seconds: float) -> None:
    assert parse_budget(text) == seconds


def test_arms_side_by_side_with_as_many_threads_as_before_get_more_done(monkeypatch: pytest.MonkeyPatch) -> None:
    run = healthy(seconds=100.0).run
    monkeypatch.setattr("valgap.experiments.plan.arms_in_parallel", lambda _: 2)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    few, many = (replace(run, header={**run.header, "threads": n}) for n in (1, 2))
    assert least_budget(few, 6) == pytest.approx(least_budget(many, 6) * SIDE_BY_SIDE / (2 * BESIDE))


def test_a_budget_may_be_a_share_of_what_the_program_took() -> None:
    assert parse_budget("1x", 300.0) == 300.0 and parse_budget("0.5x", 300.0) == 150.0
    assert parse_budget("1x", 8.0) == 60.0, "less than a minute decides nothing"
    assert parse_budget("0x", 300.0) == 0.0
    with pytest.raises(ValgapError):
        parse_budget("1x")  # where there is no program


def test_a_budget_that_is_none() -> None:
    with pytest.raises(ValgapError, match="90s, 10m or 1h"):
        parse_budget("soon")


def test_arms_are_cut_to_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = healthy().run.passes[:2]
    assert (first.phase, second.phase) == ("train", "validation")
    passes = tuple(replace(p, index=2 * i + j, seconds=10.0) for i in range(10) for j, p in enumerate((first, second)))
    run = healthy(passes=passes, seconds=210.0).run
    assert can_stop_early(run)
    monkeypatch.setattr("valgap.experiments.plan.arms_in_parallel", lambda _: 1)
    whole = choose_length(run, 6, 6 * 210 / 0.84)
    assert whole is not None and whole.whole()
    half = choose_length(run, 6, 6 * 115 / 0.85)
    assert half is not None and (half.epochs, half.fraction) == (5, 1.0)
    few = choose_length(run, 6, 6 * 32 / 0.85)
    assert few is not None and few.epochs == 2 and 0.25 <= few.fraction < 1
    assert choose_length(run, 6, 10.0) is None
    # Forked from a program that has paid the ten seconds of its start once.
    assert rest_of_fork(run, 9.0) == 1.0 and rest_of_fork(run, 30.0) == LEAST_REST_S
    told = replace(run, passes=(replace(run.passes[0], began=8.0), *run.passes[1:]))
    assert rest_of_fork(told, 5.0) == 2.0, "this machine is faster than it was: what is left after the first pass is known"
    assert rest_of_fork(told, 1.0) == 9.0, "it waits at an earlier loader"
    longer = choose_length(run, 6, 6 * 115 / 0.85, rest_of_fork(run, 9.0))
    assert longer is not None and (longer.epochs, longer.seconds) == (5, 101.0)
    assert least_budget(run, 6, 1.0) == pytest.approx(6 * (1.0 + 0.25 * 2 * 20.0) / RESERVE)
    assert least_budget(run, 6) > least_budget(run, 6, 1.0)
    late = healthy(passes=tuple(p for p in passes if p.phase == "train") + passes[-1:]).run
    assert not can_stop_early(late)


@pytest.mark.parametrize(("status", "epochs"), [(0, 0), (130, 3), (None, 3)])
def test_arms_of_a_program_that_was_stopped_end_where_it_did(
    status: int | None, epochs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the fourth of many epochs: nobody waits for the others."""
    first, second = healthy().run.passes[:2]
    passes = tuple(replace(p, index=2 * i + j, seconds=1.0) for i in range(4) for j, p in enumerate((first, second)))
    monkeypatch.setattr("valgap.experiments.plan.arms_in_parallel", lambda _: 1)
    run = replace(healthy(passes=passes[:-1], seconds=8.0).run, exit_status=status)
    length = choose_length(run, 6, 600.0)
    assert length is not None and (length.epochs, length.whole()) == (epochs, True)


def test_programs_of_a_small_part_of_the_budget_are_trained_again(monkeypatch: pytest.MonkeyPatch) -> None:
    run = healthy(seconds=60.0).run
    monkeypatch.setattr("valgap.experiments.plan.arms_in_parallel", lambda _: 1)
    monkeypatch.setattr("valgap.experiments.plan.epoch_seconds", lambda _: (10.0, 20.0))
    check = next(c for c in CATALOGUE if c.code == "PRE201")
    finding = Finding("", 5.0, 0.9, (), "")
    affine = Suspect(Judged(check, finding), finding, Intervention("affine", {"phase": "validation"}))
    one_arm = 10.0 + 20.0 * recorded_epochs(run)
    needs = 3 * one_arm / RESERVE / EASY
    assert trains_easily(run, [affine], needs + 1) and not trains_easily(run, [affine], needs - 1)
    assert not trains_easily(run, [], needs + 1)


def test_a_later_call_takes_arms_as_long_as_those_that_are_there(tmp_path: Path) -> None:
    base = ArmSpec("train.py", None, ["train.py"], "here", 0, 0, 1.0, [0], [1])
    done = replace(base, epochs=4, seed=1, closing=0.3, rescore=[Intervention("resize", {"size": [8, 8]})])
    (tmp_path / "x" / "record").mkdir(parents=True)
    (tmp_path / "x" / "spec.json").write_text(json.dumps(done.to_json()))
    assert like_before(tmp_path, base, Length(6, 1.0, 9.0), 20).epochs == 6  # it did not finish
    (tmp_path / "x" / "record" / "result.json").write_text("{}")
    assert like_before(tmp_path, base, Length(6, 1.0, 9.0), 20).epochs == 4
    assert like_before(tmp_path, base, Length(8, 1.0, 9.0), 20).epochs == 8  # twice as long is worth it
    assert like_before(tmp_path, base, Length(3, 1.0, 9.0), 20).epochs == 3
    assert like_before(tmp_path, replace(base, cwd="elsewhere"), Length(6, 1.0, 9.0), 20).epochs == 6
