"""The account in points and nats, by stage and by cause: against games whose shares are known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from tests.checks.cases import healthy
from valgap.checks import CATALOGUE
from valgap.experiments.arm import ArmSpec
from valgap.experiments.arm_result import ArmResult
from valgap.experiments.joint import Answer, Confirmed, Joint
from valgap.experiments.lab import Group
from valgap.experiments.ledger import CONFIDENCE, UNEXPLAINED, account
from valgap.experiments.plan import Length
from valgap.experiments.scoring import best_epoch, renamed, without
from valgap.experiments.screening import hints, in_place, references, screen
from valgap.experiments.trial import Trial, merged
from valgap.experiments.verdicts import compared, measure
from valgap.stats import grouped_orders, paired_effect, paired_mean, sampled_shapley_values, shapley_values
from valgap.types import (
    MAX_LOSS,
    Accuracy,
    Clear,
    Closing,
    Compared,
    Diagnosis,
    Effect,
    Evidence,
    Finding,
    Intervention,
    Judged,
    LossParts,
    Measured,
    RunRecord,
    SampleTable,
    Stage,
    Untreatable,
)

Worth = dict[frozenset[str], tuple[int, float]]  # of each set of treatments: right answers of 100, and mean loss


class Game:
    """Joint treatments whose result is given; those without one fail."""

    def __init__(self, worth: Worth) -> None:
        self.worth = worth
        self.asked: set[frozenset[str]] = set()

    def answers(self, treatments: Sequence[Intervention], among: Sequence[Intervention] = ()) -> list[dict[str, Answer]] | None:
        names = frozenset(t.name for t in treatments)
        self.asked.add(names)
        if names not in self.worth:
            return None
        right, loss = self.worth[names]
        return [{f"{i}.jpg": (float(i < right), loss + 0.1 * (i % 3 - 1)) for i in range(99)} for _ in range(2)]


def cause(name: str, stage: Stage, points: float = 9.0) -> Confirmed:
    effect = Effect(points, points - 3, points + 3, 0.001, 2, 99, Measured(0.2, 0.1, 0.3))
    return Confirmed(name, Intervention(name), effect, stage)


def random_game(names: str, seed: int) -> Worth:
    draw = np.random.default_rng(seed)
    some = (frozenset(c) for k in range(len(names) + 1) for c in itertools.combinations(names, k))
    return {s: (int(draw.integers(20, 90)), float(draw.random() * 3)) for s in some}


def diagnosed(**more: object) -> Diagnosis:
    return Diagnosis(healthy().run, (), 0.98, 0.99, Accuracy(0.4, 0.3, 0.5, 99), **more)  # type: ignore[arg-type]


def test_either_of_two_stages_suffices_and_both_share() -> None:
    worth: Worth = {
        frozenset(): (33, 2.0),
        frozenset("a"): (66, 1.0),
        frozenset("b"): (66, 1.4),
        frozenset("ab"): (66, 0.9),
    }
    found = account(diagnosed(), Game(worth), [cause("a", "read_val"), cause("b", "loss")])
    assert [(x.name, x.stage, x.points) for x in found.lines] == [("a", "read_val", 16.7), ("b", "loss", 16.7)]
    fallen_by = [x.nats.value for x in found.lines if x.nats is not None]
    assert fallen_by == pytest.approx([(1.0 + 0.5) / 2, (0.6 + 0.1) / 2])
    assert [s.stage for s in found.shares] == ["read_val", "loss"]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_stages_are_shapley_values_and_their_causes_add_up_to_them(seed: int) -> None:
    worth = random_game("abcde", seed)
    stages: dict[str, Stage] = {"a": "read_val", "b": "update", "c": "read_val", "d": "update", "e": "loss"}
    causes = [cause(n, s) for n, s in stages.items()]
    game = Game(worth)
    joint = Joint(game, causes)
    by_stage = {s: [n for n in stages if stages[n] == s] for s in ("read_val", "update", "loss")}
    for column, scale in ((0, 1 / 99), (1, -1.0)):

        def value(some: frozenset[str], column: int = column, scale: float = scale) -> float:
            return scale * worth[frozenset(n for s in some for n in by_stage[s])][column]  # type: ignore[index]

        exact = shapley_values(list(by_stage), value)
        for stage, names in by_stage.items():
            whole = joint.share(names)
            parts = [joint.share([n]) for n in names]
            assert whole is not None and whole.nats is not None
            told = [e.nats.value if column else e.value / 100 for e in parts if e is not None and e.nats is not None]
            assert (whole.nats.value if column else whole.value / 100) == pytest.approx(exact[stage])
            assert sum(told) == pytest.approx(exact[stage])
    assert frozenset("ab") not in game.asked, "a stage is opened beside whole stages"


def test_the_whole_is_shared_out_in_points_and_in_nats() -> None:
    worth = random_game("abc", 5)
    joint = Joint(Game(worth), [cause("a", "draw"), cause("b", "draw"), cause("c", "choose")])
    shares = [joint.share([n]) for n in "abc"]
    before, after = worth[frozenset()], worth[frozenset("abc")]
    assert sum(s.value for s in shares if s is not None) == pytest.approx(100 * (after[0] - before[0]) / 99)
    assert sum(s.nats.value for s in shares if s is not None and s.nats is not None) == pytest.approx(before[1] - after[1])


def test_without_joint_re_runs_no_sum_is_claimed() -> None:
    worth: Worth = {frozenset(): (40, 2.0), frozenset("a"): (60, 1.0), frozenset("b"): (55, 1.0)}
    causes = [cause("a", "draw", 20.0), cause("b", "draw", 15.0)]
    found = account(diagnosed(), Game(worth), causes)
    assert [(x.points, x.alone) for x in found.lines] == [(20.0, True), (15.0, True)] and not found.shares
    checks = [replace(CATALOGUE[0], name=n, code=f"DAT90{i}") for i, n in enumerate("ab")]
    proved = tuple(Judged(c, Finding("", 9.0, 0.9, (), ""), "confirmed") for c in checks)
    told = replace(diagnosed(), judged=proved, ledger=found.lines)
    assert told.reached == pytest.approx(60.0), "the most that one re-run has shown, and not 75"


def test_nothing_confirmed_is_nothing_reached() -> None:
    run = healthy(closing=Closing(numbers={"probe_final": 0.93})).run
    suspect = Judged(CATALOGUE[0], Finding("", 30.0, 0.9, (), ""), "inconclusive", Effect(20.0, -5.0, 40.0, 0.2, 3, 99))
    one = replace(diagnosed(), run=run, judged=(suspect,))
    lines = account(one, Game({}), []).lines
    assert [x.name for x in lines] == [UNEXPLAINED]
    assert replace(one, ledger=lines).reached is None


def test_orders_keep_a_stage_together() -> None:
    orders = grouped_orders([["a", "b"], ["c"], ["d"]], 720)
    assert len(orders) == len(set(orders)) == 12
    assert all(abs(o.index("a") - o.index("b")) == 1 for o in orders)
    few = grouped_orders([["a", "b"], ["c"], ["d"]], 4)
    assert few[0] == ("a", "b", "c", "d") and few[1] == few[0][::-1] and len(few) == 4
    assert all(abs(o.index("a") - o.index("b")) == 1 for o in few)
    singles = grouped_orders([["a"], ["b"], ["c"]], 720)
    worth = {frozenset(c): float(len(c) ** 2 + ("a" in c)) for k in range(4) for c in itertools.combinations("abc", k)}
    assert sampled_shapley_values(singles, worth.get) == pytest.approx(shapley_values("abc", worth.__getitem__))


def test_losses_have_an_interval_of_any_size() -> None:
    delta = np.random.default_rng(0).normal(3.0, 1.0, (3, 50))
    value, low, high, _ = paired_mean(delta)
    assert 2.5 < low < value < high < 3.5
    assert paired_effect(delta)[2] == 1.0, "shares right change by at most one"
    assert paired_mean(np.zeros((3, 50))) == (0.0, 0.0, 0.0, 1.0)


def table(target: Sequence[int], prediction: Sequence[int], loss: Sequence[float], margin: Sequence[float]) -> SampleTable:
    number, zero = np.arange(len(target), dtype=np.int32), np.zeros(len(target), np.float32)
    whole = (np.asarray(x, np.int32) for x in (target, prediction))
    floats = (np.asarray(x, np.float32) for x in (loss, margin))
    return SampleTable(number, *whole, *floats, zero, number // 32, zero)


def arm(samples: SampleTable) -> ArmResult:
    spec = ArmSpec("train.py", None, ["train.py"], "here", 0, 0, 1.0, [0], [1])
    return ArmResult(spec, healthy().run, samples, (), 1.0, None)


def test_one_image_counts_no_more_than_the_bound() -> None:
    seen = table([0, 0, 0, -1, 0], [0, 1, 1, 1, -1], [0.5, 400.0, math.nan, math.nan, math.nan], [0.0] * 5)
    assert seen.bounded_loss.tolist()[:3] == [0.5, MAX_LOSS, MAX_LOSS]
    assert math.isnan(seen.bounded_loss[3]) and len(seen.bounded_loss) == 4, "no answer was seen; no label is left out"


def test_an_effect_has_nats_of_the_same_samples() -> None:
    before = arm(table([0] * 40, [1] * 40, [2.0 + i % 2 for i in range(40)], [0.0] * 40))
    after = arm(table([0] * 40, [0] * 40, [0.5 + i % 2 for i in range(40)], [0.0] * 40))
    found = compared([before] * 2, [after] * 2)
    assert found is not None and found.loss is not None and found.loss[0].shape == (2, 40)
    assert measure(found, 1).nats == Measured(1.5, 1.5, 1.5)
    unknown = compared([before], [replace(after, loss_known=False)])
    assert unknown is not None and unknown.loss is None


def test_the_loss_under_another_name_is_that_of_the_answer() -> None:
    logits = np.array([[2.0, 5.0, 0.0], [4.0, 1.0, 0.5], [0.0, 1.0, 3.0]])
    target, answer = np.array([0, 1, 2]), logits.argmax(1)
    loss = np.log(np.exp(logits).sum(1)) - logits[np.arange(3), target]
    margin = [x[t] - np.delete(x, t).max() for x, t in zip(logits, target, strict=True)]
    given = arm(table(target.tolist(), answer.tolist(), loss.tolist(), margin))
    swapped = renamed(given, Intervention("score_renamed", {"mapping": {"0": 1, "1": 0, "2": 2}}))
    true = np.log(np.exp(logits).sum(1)) - logits[np.arange(3), [1, 0, 2]]
    assert list(swapped.losses().values()) == pytest.approx(true.tolist(), abs=1e-5)
    other = renamed(given, Intervention("score_renamed", {"mapping": {"0": 2, "1": 0, "2": 1}}))
    assert all(map(math.isnan, other.losses().values())), "of labels that are no answer, no pass computed the loss"


def test_the_best_epochs_loss_goes_with_its_answers() -> None:
    run = healthy().run
    first, last = (table([0] * 60, [p] * 60, [v] * 60, [0.0] * 60) for p, v in ((0, 0.3), (1, 1.9)))
    val = next(p for p in run.passes if p.phase == "validation")
    passes = tuple(replace(val, index=i, samples=t) for i, t in enumerate((first, last)))
    spec = replace(arm(last).spec, validation=[val.dataset])
    given = replace(arm(last), record=replace(run, passes=passes), spec=spec)
    assert list(best_epoch(given).losses().values()) == pytest.approx([0.3] * 60)
    assert best_epoch(given).accuracy == 1.0


def test_leaving_samples_out_is_counted_in_nats_too() -> None:
    given = arm(table([0] * 100, [1] * 10 + [0] * 90, [5.0] * 10 + [0.5] * 90, [0.0] * 100))
    names = list(given.correct())[:10]
    found = without([given], names, 1)
    assert found is not None and found[0].nats is not None
    assert found[0].nats.value == pytest.approx(0.45) and 0.0 < found[0].nats.low < 0.45 < found[0].nats.high


def effects(
    worth: dict[str, float], noise: float = 1.0
) -> tuple[Callable[[Sequence[Stage], int, int, int], Effect | None], list[tuple[Stage, ...]]]:
    """Stages whose references change so much, added up; and what was tried of them."""
    asked: list[tuple[Stage, ...]] = []

    def tried(stages: Sequence[Stage], alike: int, look: int, seeds: int) -> Effect:
        asked.append(tuple(stages))
        value, now = sum(worth.get(s, 0.0) for s in stages), noise * 3 / seeds
        p_value = 0.001 if abs(value) > now else 0.2 if abs(value) > now / 3 else 0.6
        return Effect(value, value - now, value + now, p_value, seeds, 99, Measured(0.01, -0.01, 0.03), looks=look)

    return tried, asked


def test_one_look_rules_out_all_that_change_nothing() -> None:
    stages: tuple[Stage, ...] = ("draw", "read_train", "read_val", "choose")
    tried, asked = effects({"draw": 0.3})
    found = screen(stages, tried)
    assert asked == [stages] and not found.alone
    assert [(s.stage, s.told, s.together) for s in found.shares] == [(s, "none", stages) for s in stages]
    assert found.shares[0].points == Measured(0.3, -0.7, 1.3)


def test_halves_lead_to_the_stage_that_costs_and_to_the_one_that_gains() -> None:
    stages: tuple[Stage, ...] = ("draw", "read_train", "read_val", "choose")
    tried, asked = effects({"read_train": -6.0, "choose": 11.0})
    found = screen(stages, tried)
    told = {s.stage: s.told for s in found.shares}
    assert told == {"draw": "none", "read_train": "gain", "read_val": "none", "choose": "cost"}
    assert list(found.alone) == ["read_train", "choose"] and len(asked) == 7


def test_what_seems_to_cost_is_tried_first_and_a_gain_by_itself() -> None:
    stages: tuple[Stage, ...] = ("draw", "read_train", "update", "choose")
    tried, asked = effects({"read_train": -9.0, "choose": 9.0})
    assert not screen(stages, tried).alone  # the two hide each other
    found = screen(stages, tried, ["choose"], ["read_train"])
    assert {s.stage: s.told for s in found.shares} == {"choose": "cost", "draw": "none", "update": "none", "read_train": "gain"}
    assert asked[1:] == [("choose",), ("draw", "update"), ("read_train",)]


def test_reading_that_costs_on_one_side_is_not_found_again_on_both() -> None:
    tried, asked = effects({"read_val": 9.0, "read_train": 9.0})
    screen(("read_train", "read_val", "update"), tried, ["read_val"])
    assert asked == [("read_val",), ("update",)]


def test_where_time_ends_before_a_group_is_told_apart_the_group_is_told() -> None:
    tried, _ = effects({"update": 9.0})
    found = screen(("read_train", "loss", "update"), lambda s, *rest: tried(s, *rest) if len(s) > 2 else None)
    assert not found.shares and [g for g, _ in found.among] == [("read_train", "loss", "update")] and not found.likely
    unsure, _ = effects({"update": 9.0}, noise=25.0)  # nothing is decided by three seeds
    once = screen(("loss", "update"), lambda s, alike, look, seeds: unsure(s, alike, look, seeds) if look == 1 else None)
    assert not once.shares and not once.likely  # its interval holds zero
    near = Effect(9.0, 0.5, 17.5, 0.04, 3, 99)
    assert [g for g, _ in screen(("loss", "update"), lambda s, a, look, n: near if look == 1 else None).likely] == [
        ("loss", "update")
    ]
    assert not screen(("read_train", "loss", "update"), tried).among


def test_the_comparison_says_what_is_tried_by_itself() -> None:
    class Vague(Known):
        points: ClassVar = {"draw": (1.0, 0.5, 1.5), "read_train": (5.0, 1.0, 9.0), "read_val": (8.0, 1.0, 15.0)}
        points |= {"loss": (-6.0, -9.0, -3.0), "update": (9.0, -1.0, 19.0)}

        def compared(self, stage: Stage) -> Compared:
            return Compared("sound", "", Measured(*self.points[stage]) if stage in self.points else None)

    every: tuple[Stage, ...] = ("draw", "read_train", "read_val", "forward", "loss", "update")
    assert hints(every, Vague()) == (["read_val", "read_train"], ["loss"])


def test_what_is_not_measured_or_too_wide_rules_nothing_out() -> None:
    assert screen(("draw", "choose"), lambda *_: None).shares == ()
    assert screen(("draw", "choose"), effects({}, noise=50.0)[0]).shares == ()
    assert screen((), effects({})[0]).shares == ()


def test_seeds_are_added_while_nothing_is_decided() -> None:
    tried, asked = effects({"choose": 9.0}, noise=12.0)
    found = screen(("draw", "choose"), tried)
    assert list(found.alone) == ["choose"] and found.alone["choose"].seeds == 6 > 3
    assert [s.told for s in found.shares] == ["cost"] and asked.count(("draw", "choose")) == 3
    hopeless, asked = effects({"choose": 1.0}, noise=12.0)
    assert not screen(("draw", "choose"), hopeless).shares and len(asked) == 2


@pytest.mark.parametrize(
    ("effect", "told"),
    [
        (Effect(5.0, -1.0, 11.0, 0.08, 3, 99, Measured(0.3, 0.2, 0.4), 0.001), "cost"),  # the loss says that it is no chance
        (Effect(1.0, -3.0, 5.0, 0.6, 3, 99, Measured(0.3, 0.2, 0.4), 0.001), None),  # a sharper loss alone
        (Effect(5.0, -1.0, 11.0, 0.08, 3, 99, Measured(-0.3, -0.4, -0.2), 0.001), None),  # the two disagree
        (Effect(-5.0, -11.0, 1.0, 0.08, 3, 99, Measured(-0.3, -0.4, -0.2), 0.001), "gain"),
    ],
)
def test_either_outcome_tells_that_it_is_no_chance_and_accuracy_how_much(effect: Effect, told: str | None) -> None:
    assert [s.told for s in screen(("update",), lambda *_: effect).shares] == ([told] if told else [])


class Known:
    """Stages of which each has a reference that can be put in its place."""

    def compared(self, stage: Stage) -> Compared:
        return Compared("sound", "", treatment=Intervention("of", {"stage": stage}))

    def reference(self, stage: Stage) -> Intervention | Untreatable:
        return Untreatable("") if stage in ("files", "measure") else Intervention("of", {"stage": stage})


def test_references_where_nothing_was_confirmed() -> None:
    every = references(Known(), [], trained=True)
    assert list(every) == ["draw", "pair", "read_train", "read_val", "forward", "loss", "update", "choose"]
    assert list(references(Known(), ["read_val", "pair"], trained=True)) == ["draw", "forward", "loss", "update", "choose"]
    assert list(references(Known(), ["choose", None], trained=False)) == ["read_val", "forward"]
    assert list(references(None, [], trained=False)) == []
    both = [t.settings["stage"] for t in in_place(["read_train", "read_val"], every)]
    assert both == ["read_train"] and len(in_place(["draw", "read_val"], every)) == 2


def test_gains_and_confidence_stand_beside_the_sum() -> None:
    parts = LossParts(1.2, Measured(0.4, 0.3, 0.5), 0.8, 99)
    screened = screen(("read_train",), effects({"read_train": -6.0})[0]).shares
    one = replace(diagnosed(loss=parts), run=healthy(closing=Closing(numbers={"probe_final": 0.9})).run)
    found = account(one, Game({}), [cause("a", "draw", 20.0)], screened)
    assert [(x.name, x.kind, x.points, x.stage) for x in found.lines] == [
        ("a", "cause", 20.0, "draw"),
        (UNEXPLAINED, "rest", 30.0, None),
        ("reading training images", "gain", -6.0, "read_train"),
        (CONFIDENCE, "confidence", 0.0, "loss"),
    ]
    assert found.lines[-1].nats == parts.confidence
    sure = replace(one, loss=replace(parts, confidence=Measured(0.01, -0.01, 0.03)))
    assert all(x.kind != "confidence" for x in account(sure, Game({}), []).lines)


class Program:
    """Stands for Lab: of 200 images, how many are right with the references of some stages in place."""

    def __init__(self, right: dict[str, int], time: bool = True) -> None:
        self.run, self.seeds, self.right, self.time = healthy().run, 3, right, time
        self.base, self.length = arm(table([0], [0], [0.0], [0.0])).spec, Length(0, 1.0, 1.0)
        self.alike = False
        self.notes: list[str] = []

    def compare(self, run: RunRecord) -> Known:
        return Known()

    def missing(self, groups: Iterable[Group]) -> list[Group]:
        return list(groups)

    def programs_of(self, treatments: Sequence[Intervention], seeds: int) -> Group:
        return Group(tuple(treatments), seeds)

    def time_for(self, arms: int) -> bool:
        return self.time

    def results(self, treatments: Sequence[Intervention], seeds: int = 3) -> list[ArmResult]:
        count = 100 + sum(self.right.get(str(t.settings.get("stage", t.name)), 0) for t in treatments)
        return [arm(table([0] * 200, [int(i >= count) for i in range(200)], [2.0 - count / 200] * 200, [0.0] * 200))] * seeds


def unsuspected(lab: Program) -> tuple[Trial, list[Confirmed], dict[Stage, str]]:
    judged = tuple(Judged(c, Clear("")) for c in CATALOGUE if c.code.startswith("STG"))
    given: Any = lab
    trial = Trial(given, [], [])
    more, others = trial.unsuspected(replace(diagnosed(), judged=judged), [])
    return trial, more, {s.stage: s.told for s in others}


def test_a_stage_that_nobody_suspected_is_confirmed_by_its_reference_alone() -> None:
    trial, more, others = unsuspected(Program({"draw": 40, "read_train": -20}))
    assert [(c.name, c.stage, c.effect.value) for c in more] == [("faulty_draw", "draw", 20.0)]
    assert more[0].effect.nats is not None and more[0].effect.nats.value == pytest.approx(40 / 200)
    assert [(j.check.name, j.verdict) for j in trial.settled] == [("faulty_draw", "confirmed")]
    sound: tuple[Stage, ...] = ("pair", "read_val", "forward", "loss", "update", "choose")
    assert others == {"read_train": "gain", **dict.fromkeys(sound, "none")}


def test_where_nothing_changes_or_no_time_is_left_no_stage_is_told() -> None:
    trial, more, others = unsuspected(Program({}))
    assert not more and not trial.settled and set(others.values()) == {"none"}
    _, more, others = unsuspected(Program({"draw": 30}, time=False))
    assert not more and not others


def test_a_confirmed_cause_no_longer_shows_the_cost_that_was_assumed() -> None:
    check = next(c for c in CATALOGUE if c.code == "EVA501")
    facts = (Evidence("cost (not re-scored): assumed", 3.0, 0.0, "points"), Evidence("active Dropout layers", 1.0, 0.0))
    judged = Judged(check, Finding("", 3.0, 0.9, facts, ""))
    effect = Effect(22.0, 16.0, 28.0, 1e-4, 3, 500)
    for verdict, names in (("confirmed", ["active Dropout layers"]), ("inconclusive", [e.name for e in facts])):
        settled = replace(judged, verdict=verdict, effect=effect)
        outcome = merged(replace(diagnosed(), judged=(judged,)), [settled])[0].outcome
        assert isinstance(outcome, Finding) and [e.name for e in outcome.evidence] == names
