"""Seeds go where a verdict is open and near; what is hopeless is left; time is used up as long as anything is open."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from tests.checks.cases import healthy
from tests.experiments.test_joint import table
from valgap.checks import CATALOGUE
from valgap.experiments.arm import ArmSpec
from valgap.experiments.arm_result import ArmResult
from valgap.experiments.contest import FIRST_SEEDS, LOOKS, Contest, decide, first_looks, of_first_looks
from valgap.experiments.lab import LEAST_SEEDS, OUT_OF_TIME, Group, Lab
from valgap.experiments.plan import SEEDS, Length
from valgap.experiments.suspects import EVAL_MODE, Suspect, number_of_arms, sort_out
from valgap.experiments.trial import Trial
from valgap.reference import Stages
from valgap.types import Compared, Diagnosis, Finding, Intervention, Judged, Proposal, Stage, Untreatable

IMAGES = 300


class Arms:
    """Stands for Runner: arms whose answers are drawn, each treatment with a gain and a luck of its seeds."""

    def __init__(self, gains: dict[str, tuple[float, float]], most: int = 60) -> None:
        self.gains, self.left = gains, most
        self.parallel, self.expected_s, self.deadline = 2, 1.0, time.monotonic() + 1e6
        self.asked: list[str] = []
        self.ability = np.random.default_rng(0).normal(1.0, 1.5, IMAGES)

    def run(self, specs: Sequence[ArmSpec]) -> list[ArmResult]:
        self.left -= len(specs)
        if self.left < 2:
            self.deadline = 0.0
        return [self._one(s) for s in specs]

    def _one(self, spec: ArmSpec) -> ArmResult:
        name = str(spec.interventions[0].settings["name"]) if spec.interventions else ""
        self.asked.append(name)
        gain, luck = self.gains[name]
        draw = np.random.default_rng([spec.seed, sum(map(ord, name))])
        z = self.ability + gain + luck * draw.normal() + draw.normal(size=IMAGES)
        answers = table([0] * IMAGES, [int(v < 0) for v in z], np.log1p(np.exp(-z)).tolist(), z.tolist())
        return ArmResult(spec, healthy().run, answers, (1,) * len(spec.interventions), 1.0, None)


def contests(arms: Arms) -> tuple[Lab, dict[str, Contest]]:
    run = healthy().run
    spec = ArmSpec("train.py", None, ["train.py"], "here", 0, 0, 1.0, [0], [1])
    given: Any = arms
    lab = Lab(run, spec, Length(0, 1.0, 1.0), given)
    finding = Finding("", 9.0, 0.9, (), "")
    named = [n for n in arms.gains if n]
    suspects = [
        Suspect(Judged(c, finding), finding, Intervention("nothing", {"name": n})) for c, n in zip(CATALOGUE, named, strict=False)
    ]
    lab.control()
    return lab, {n: Contest(lab, s, len(named)) for n, s in zip(named, suspects, strict=True)}


def test_seeds_go_to_what_is_open_and_the_plain_is_decided_at_once() -> None:
    arms = Arms({"": (0.0, 0.1), "large": (3.0, 0.1), "small": (0.35, 0.25)})
    lab, found = contests(arms)
    first_looks(lab, list(found.values()))
    assert found["large"].judged.verdict == "confirmed" and not found["large"].open
    assert found["small"].judged.verdict == "inconclusive" and found["small"].open
    decide(lab, list(found.values()))
    assert arms.asked.count("large") == FIRST_SEEDS
    assert found["small"].judged.verdict == "confirmed"
    effect = found["small"].judged.effect
    assert effect is not None and effect.seeds == arms.asked.count("small") > SEEDS
    assert effect.looks == 1 + LOOKS.index(effect.seeds), "later looks are spaced: each uses up a part of the level"
    assert arms.left > 0, "nothing more is run once all is decided"


def test_what_does_nothing_is_refuted_and_left() -> None:
    arms = Arms({"": (0.0, 0.0), "none": (0.0, 0.0)}, most=200)
    lab, found = contests(arms)
    first_looks(lab, list(found.values()))
    decide(lab, list(found.values()))
    judged = found["none"].judged
    assert judged.verdict != "confirmed" and not found["none"].open
    assert arms.left > 100


def test_the_time_is_used_as_long_as_something_is_open() -> None:
    arms = Arms({"": (0.0, 1.5), "lucky": (0.6, 1.5)}, most=24)
    lab, found = contests(arms)
    first_looks(lab, list(found.values()))
    decide(lab, list(found.values()))
    assert arms.left < 2 and found["lucky"].judged.verdict == "inconclusive"
    assert found["lucky"].seeds >= 8


def test_where_the_time_ends_early_both_sides_have_as_many_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    arms = Arms({"": (0.0, 0.1), "large": (5.0, 0.1)})
    lab, found = contests(arms)
    lab._done.clear()
    whole, begun = arms._one, []

    def one(spec: ArmSpec) -> ArmResult:
        begun.append(spec.seed)
        late = len(begun) > 2 * LEAST_SEEDS
        return ArmResult(spec, None, None, (), 0.0, f"{OUT_OF_TIME} before it began") if late else whole(spec)

    monkeypatch.setattr(arms, "_one", one)
    lab.prepare([Group(seeds=SEEDS), *of_first_looks(list(found.values()))])
    assert begun == [0, 0, 1, 1, 2, 2]
    monkeypatch.setattr("valgap.experiments.lab.reproduces", lambda recorded, n, control: (True, f"{len(control)} seeds"))
    problem, told, _ = lab.fidelity(lab.control())
    assert problem is None and told.startswith("2 seeds")
    first_looks(lab, list(found.values()))
    effect = found["large"].judged.effect
    assert effect is not None and effect.seeds == LEAST_SEEDS and found["large"].judged.verdict == "confirmed"
    monkeypatch.setattr(arms, "_one", lambda spec: ArmResult(spec, None, None, (), 0.0, "the program ended with status 1"))
    lab._done.clear()
    assert "status 1" in (lab.fidelity(lab.control())[0] or "")


def test_more_time_is_proposed_where_seeds_would_decide() -> None:
    arms = Arms({"": (0.0, 0.1), "large": (5.0, 0.1), "small": (0.4, 0.25)}, most=12)
    lab, found = contests(arms)
    first_looks(lab, list(found.values()))
    assert found["small"].judged.verdict == "inconclusive"
    seconds = found["small"].more_s()
    assert found["large"].more_s() is None and seconds is not None
    arms.left = 1000
    trial = Trial(lab, [c.suspect for c in found.values()], [c.judged for c in found.values()])
    proposed = trial.proposals(list(found.values()))
    assert proposed[0] == Proposal(found["small"].suspect.judged.check.code, round(seconds, 1))
    before = len(arms.asked)
    decide(lab, [found["small"]])
    assert found["small"].judged.verdict == "confirmed" and found["small"].more_s() is None
    took = (len(arms.asked) - before) / arms.parallel * arms.expected_s
    assert seconds / 2 <= took <= 2 * seconds, "it was no empty promise"


def test_fewer_seeds_are_added_where_there_is_no_time_for_those_of_the_next_look() -> None:
    arms = Arms({"": (0.0, 1.5), "lucky": (0.6, 1.5)}, most=11)
    lab, found = contests(arms)
    first_looks(lab, list(found.values()))
    arms.deadline = time.monotonic() + 1.5  # a round of two arms takes a second: four seeds, and not six at once
    decide(lab, list(found.values()))
    assert found["lucky"].seeds == 5 == arms.asked.count("lucky")


def test_the_nearer_verdict_comes_first() -> None:
    arms = Arms({"": (0.0, 0.1), "far": (0.15, 0.8), "small": (0.35, 0.25)}, most=34)
    lab, found = contests(arms)
    first_looks(lab, list(found.values()))
    assert found["small"].open and found["far"].open
    assert found["small"].gain_per_second() > found["far"].gain_per_second()
    begun = len(arms.asked)
    decide(lab, list(found.values()))
    assert "small" in arms.asked[begun : begun + 2] and found["small"].judged.verdict == "confirmed"
    assert arms.asked.count("far") > FIRST_SEEDS, "then comes what is left"


def test_an_arm_that_fails_leaves_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    arms = Arms({"": (0.0, 0.1), "broken": (3.0, 0.1)})
    whole = arms._one

    def one(spec: ArmSpec) -> ArmResult:
        if spec.interventions:
            return ArmResult(spec, None, None, (), 0.0, "the program ended with status 1")
        return whole(spec)

    monkeypatch.setattr(arms, "_one", one)
    lab, found = contests(arms)
    first_looks(lab, list(found.values()))
    assert found["broken"].judged.verdict == "inconclusive" and "status 1" in found["broken"].judged.reason
    assert not found["broken"].open


def test_a_cause_without_a_change_of_its_own_is_tried_by_its_stage() -> None:
    check = next(c for c in CATALOGUE if c.treat is None and c.stage == "update")
    finding = Finding("", 20.0, 0.9, (), "")
    run = healthy().run
    other = replace(check, code=check.code + "b")
    judged = tuple(Judged(c, f) for c, f in ((check, finding), (other, replace(finding, severity_points=10.0))))
    diagnosis = Diagnosis(run, judged, None, None, None)
    suspects, settled = sort_out(diagnosis, Stages(run, None))
    assert [(s.judged.check.code, s.treatment.name, s.by_stage) for s in suspects] == [(check.code, "reference_update", True)]
    assert [(j.check.code, j.verdict) for j in settled] == [(other.code, "untested")]
    assert sort_out(diagnosis)[0] == []


@dataclass(frozen=True)
class Forward:
    """Stands for what the record says of the stages."""

    kind: str
    trained: bool  # whether validation ran in train mode

    def compared(self, stage: Stage) -> Compared:
        return Compared("at fault", "", kind=self.kind)

    def reference(self, stage: Stage) -> Intervention | Untreatable:
        return EVAL_MODE if self.trained else Untreatable("validation ran in eval mode as it was")


@pytest.mark.parametrize(
    ("kind", "trained", "treatment"),
    [("", False, "plain_forward"), ("altered", False, "keep_loaded"), ("mates", False, "eval_mode"), ("", True, "eval_mode")],
)
def test_a_fault_of_the_forward_pass_is_tried_by_its_kind(kind: str, trained: bool, treatment: str) -> None:
    check = next(c for c in CATALOGUE if c.name == "faulty_forward")
    finding = Finding("", 20.0, 0.9, (), "")
    diagnosis = Diagnosis(healthy().run, (Judged(check, finding),), None, None, None)
    suspects, settled = sort_out(diagnosis, Forward(kind, trained))
    assert [(s.treatment.name, s.by_stage) for s in suspects] == [(treatment, treatment != "eval_mode")] and not settled


@pytest.mark.parametrize(
    ("name", "kind", "treatment"),
    [
        ("too_few_epochs", "", "train_longer"),  # it was called without an argument for the number of epochs
        ("faulty_choose", "early", "train_longer"),
        ("faulty_choose", "", "score_best_epoch"),
    ],
)
def test_a_training_that_ends_too_soon_is_made_longer(name: str, kind: str, treatment: str) -> None:
    check = next(c for c in CATALOGUE if c.name == name)
    finding = Finding("", 20.0, 0.9, (), "")
    diagnosis = Diagnosis(healthy().run, (Judged(check, finding),), None, None, None)
    suspects, _ = sort_out(diagnosis, Forward(kind, False))
    assert [s.treatment.name for s in suspects] == [treatment]
    assert number_of_arms(suspects) == SEEDS * (1 + 3 * (treatment == "train_longer")), "three times as long, as three arms"


def test_that_a_stage_in_the_plain_way_changes_nothing_rules_no_cause_of_it_out() -> None:
    lab, found = contests(Arms({"": (0.0, 0.0), "worse": (-0.6, 0.0)}, most=200))
    whole = Contest(lab, replace(found["worse"].suspect, by_stage=True), 1)
    first_looks(lab, [found["worse"], whole])
    assert found["worse"].judged.verdict == "refuted" and whole.judged.verdict == "inconclusive"
    assert "whole stage" in whole.judged.reason
