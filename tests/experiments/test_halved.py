"""Too few images: half of them, another half in every seed, in as many steps; what that costs is told as a cost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.checks.cases import healthy
from tests.experiments.test_contest import Arms, contests
from valgap.checks import CATALOGUE
from valgap.experiments.contest import Contest, first_looks
from valgap.experiments.halved import HALF, as_cost, of_seed
from valgap.experiments.suspects import NO_TREATMENT, Suspect, sort_out
from valgap.experiments.trial import removes_nothing
from valgap.seams.acting.loader_acts import InPlace, half_for_whole
from valgap.types import Diagnosis, Effect, Finding, Intervention, Judged, Measured

FEW = next(c for c in CATALOGUE if c.name == "too_few_images")
FOUND = Finding("few", 8.0, 0.7, (), "")


def test_half_of_every_class_stands_for_all_of_it() -> None:
    targets = np.array([0, 1, 0, 1, 1, 2, 0, 0, 1])
    drawn = half_for_whole(targets, 0)
    assert targets[drawn].tolist() == targets.tolist()
    kept = [{p for p in drawn if targets[p] == label} for label in range(3)]
    assert [len(k) for k in kept] == [2, 2, 1]
    assert all(drawn[p] == p for k in kept for p in k)
    assert half_for_whole(targets, 0) == drawn != half_for_whole(targets, 1)


def test_indices_and_batches_keep_their_number_and_order() -> None:
    others = [0, 0, 2, 2]
    assert list(InPlace([3, 1, 0], others)) == [2, 0, 0] and len(InPlace([3, 1, 0], others)) == 3
    assert list(InPlace([[3, 1], [2]], others)) == [[2, 0], [2]]


def test_every_seed_leaves_out_another_half_and_other_treatments_are_left_alone() -> None:
    assert of_seed(HALF, 2).settings == {"draw": 2}
    other = Intervention("shuffle")
    assert of_seed(other, 2) is other and not removes_nothing(other) and removes_nothing(HALF)


def test_the_effect_is_told_as_a_cost() -> None:
    effect = Effect(-8.0, -11.0, -5.0, 1e-4, 3, 100, Measured(-0.3, -0.4, -0.2), 1e-3)
    cost = as_cost(effect)
    assert (cost.value, cost.low, cost.high) == (8.0, 5.0, 11.0)
    assert cost.nats == Measured(0.3, 0.2, 0.4) and cost.p_value == effect.p_value


def test_a_lack_of_images_is_suspected_to_be_tried() -> None:
    diagnosis = Diagnosis(healthy().run, (Judged(FEW, FOUND),), None, None, None)
    (suspect,), settled = sort_out(diagnosis)
    assert suspect.treatment == HALF and suspect.expected == -1.0 and not settled
    other = replace(FEW, name="another_lack")
    none, (judged,) = sort_out(replace(diagnosis, judged=(Judged(other, FOUND),)))
    assert not none and judged.reason == NO_TREATMENT


def halved(gain: float) -> Judged:
    """What re-runs say where half of the images changes the answers by so much."""
    arms = Arms({"": (0.0, 0.1), "half": (gain, 0.1)})
    lab, _ = contests(arms)
    whole = arms._one

    def one(spec):  # type: ignore[no-untyped-def]
        named = [Intervention("nothing", {"name": "half"})] if spec.interventions else []
        return replace(whole(replace(spec, interventions=named)), spec=spec)

    arms._one = one  # type: ignore[method-assign]
    contest = Contest(lab, Suspect(Judged(FEW, FOUND), FOUND, HALF), 1)
    first_looks(lab, [contest])
    return contest.judged


def test_confirmed_where_half_of_the_images_costs_points() -> None:
    judged = halved(-3.0)
    assert judged.verdict == "confirmed" and judged.reason.startswith("half of the training images")
    assert judged.effect is not None and judged.effect.low > 0


def test_not_confirmed_where_it_costs_nothing_or_helps() -> None:
    assert halved(0.0).verdict != "confirmed"
    better = halved(3.0)
    assert better.verdict == "refuted" and better.effect is not None and better.effect.high < 0
