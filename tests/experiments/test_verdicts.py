"""Effects, verdicts, Shapley values, budgets: against simulation and worked examples."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import healthy
from valgap.errors import ValgapError
from valgap.experiments.ledger import UNEXPLAINED, account
from valgap.experiments.plan import can_stop_early, choose_length, parse_budget
from valgap.experiments.verdicts import judge_effect, measure
from valgap.stats import paired_effect, shapley_values
from valgap.types import Accuracy, Closing, Diagnosis, Effect, Intervention


def simulated(draw: np.random.Generator, gain: float, seeds: int = 3, samples: int = 150) -> np.ndarray:
    """Differences (S, N) of two arms whose images are right with the same probability, but for a gain."""
    ability = draw.beta(2, 1, samples)
    before = draw.random((seeds, samples)) < ability
    after = draw.random((seeds, samples)) < np.clip(ability + gain, 0, 1)
    return after.astype(float) - before.astype(float)


def test_no_effect_is_rarely_confirmed_and_its_interval_covers() -> None:
    draw = np.random.default_rng(0)
    found = [measure(simulated(draw, 0.0), 1) for _ in range(600)]
    assert np.mean([e.p_value < 0.05 for e in found]) <= 0.05
    assert np.mean([e.low <= 0 <= e.high for e in found]) >= 0.95


def test_a_true_effect_is_found_and_covered() -> None:
    draw = np.random.default_rng(1)
    rows = [simulated(draw, 0.15) for _ in range(200)]
    truth = np.mean([100 * r.mean() for r in rows])
    found = [measure(r, 1) for r in rows]
    assert np.mean([judge_effect(e, 1.0)[0] == "confirmed" for e in found]) > 0.85
    assert np.mean([e.low <= truth <= e.high for e in found]) >= 0.95


def test_more_causes_tried_need_more_evidence() -> None:
    delta = simulated(np.random.default_rng(4), 0.12)
    assert measure(delta, 10).p_value == pytest.approx(min(1.0, 10 * measure(delta, 1).p_value))


def test_equal_arms_are_refuted_not_confirmed() -> None:
    value, low, high, p_value = paired_effect(np.zeros((3, 200)))
    assert (value, p_value) == (0.0, 1.0)
    assert (low, high) == (-0.015, 0.015)
    assert judge_effect(measure(np.zeros((3, 200)), 1), 1.0)[0] == "refuted"
    assert judge_effect(measure(np.zeros((3, 30)), 1), 1.0)[0] == "inconclusive"
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
    """Accuracies of joint treatments, as if measured."""

    def accuracy(self, treatments: Sequence[Intervention]) -> float:
        return 0.412 + {0: 0.0, 1: 0.2, 2: 0.4177}[len(treatments)]


def test_the_ledger_sums_to_the_last_digit() -> None:
    run = healthy(closing=Closing(numbers={"probe_final": 0.9333})).run
    diagnosis = Diagnosis(run, (), 0.98, 0.99, Accuracy(0.41234, 0.34, 0.49, 153))
    confirmed = [(n, Intervention(n), Effect(20.0, 10.0, 30.0, 0.001, 3, 153)) for n in ("one", "two")]
    lines = account(diagnosis, Joint(), [], confirmed)
    assert [line.name for line in lines] == ["one", "two", UNEXPLAINED]
    assert round(41.2 + sum(line.points for line in lines), 1) == 93.3
    assert account(diagnosis, Joint(), [], [])[0].points == pytest.approx(93.3 - 41.2)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1h", 3600), ("2", 120), ("0", 0), ("0.5 h", 1800)])
def test_budgets(text: str, seconds: float) -> None:
    assert parse_budget(text) == seconds


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
    late = healthy(passes=tuple(p for p in passes if p.phase == "train") + passes[-1:]).run
    assert not can_stop_early(late)
