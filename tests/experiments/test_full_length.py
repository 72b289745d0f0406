"""The ledger says what an effect of shortened arms would be in whole ones."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tests.experiments.test_joint import Game, cause, diagnosed
from valgap.experiments.full_length import LEAST_MOVE_NATS, MOVE_POINTS, MOVE_SHARE, at_full_length
from valgap.experiments.joint import Joint
from valgap.experiments.ledger import account
from valgap.types import Effect, Measured

EFFECT = Effect(20.0, 14.0, 28.0, 1e-4, 3, 100, Measured(0.5, 0.3, 0.7), 1e-4)


def test_whole_arms_need_no_estimate() -> None:
    assert at_full_length(EFFECT) == (None, None)


def test_margins_are_joined_and_grow_as_the_root_of_the_doublings() -> None:
    points, nats = at_full_length(replace(EFFECT, trained=0.25))
    assert points is not None and nats is not None and (points.value, nats.value) == (20.0, 0.5)
    assert points.low == pytest.approx(20 - math.hypot(6, MOVE_POINTS * math.sqrt(2)))
    assert points.high == pytest.approx(20 + math.hypot(8, MOVE_POINTS * math.sqrt(2)))
    assert nats.high == pytest.approx(0.5 + math.hypot(0.2, (LEAST_MOVE_NATS + MOVE_SHARE * 0.5) * math.sqrt(2)))
    nearly, _ = at_full_length(replace(EFFECT, trained=0.999))
    assert nearly is not None and (nearly.low, nearly.high) == pytest.approx((14.0, 28.0), abs=0.2)
    most, none = at_full_length(replace(EFFECT, value=95.0, low=90.0, high=99.0, trained=0.5, nats=None))
    assert most is not None and most.high == 100.0 and none is None


def test_a_line_of_short_arms_says_what_it_would_be_and_the_sum_stays_exact() -> None:
    one = cause("a", "read_train", 20.0)
    (whole,) = account(diagnosed(), Game({}), [one]).lines
    assert whole.whole is None and whole.note == ""
    (cut,) = account(diagnosed(), Game({}), [replace(one, effect=replace(one.effect, trained=0.4))]).lines
    assert cut.points == whole.points == 20.0 and cut.whole is not None and cut.whole_nats is not None
    assert cut.whole.low < whole.low and cut.whole.high > whole.high  # type: ignore[operator]
    assert "in 40% of the training" in cut.note


def test_joint_arms_are_as_long_as_the_longest_of_their_causes_needs() -> None:
    worth = {frozenset(k): (40 + 10 * len(k), 2.0) for k in ("", "a", "b", "ab")}
    short, long = cause("a", "draw"), cause("b", "loss")
    short = replace(short, effect=replace(short.effect, trained=0.5))
    for other, trained in ((long, 1.0), (replace(long, effect=short.effect), 0.5)):
        share = Joint(Game(worth), [short, other]).share(["a"])
        assert share is not None and share.trained == trained
