"""TRN417."""

from dataclasses import replace

import pytest

from tests.checks.cases import found, healthy
from tests.checks.ranks import WRAPPING, of_ranks, own_steps, two_ranks
from valgap.checks.training.loss_divided_by_processes import CHECK
from valgap.types import Case, Clear, Finding, NotApplicable, OptimizerInfo


def scaled(scale: float, optimizer: str = "SGD") -> Case:
    case = of_ranks(
        two_ranks(),
        passes=lambda r: tuple(replace(p, steps=own_steps(p.samples, scale)) if p.phase == "train" else p for p in r.passes),
    )
    return Case(replace(case.run, optimizers={0: OptimizerInfo(0, optimizer, ({"lr": 1e-3},), (5,))}))


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_the_loss_is_scaled_by_the_number_of_processes(scale: float) -> None:
    finding = found(CHECK.detect(scaled(scale)))
    assert finding.evidence[0].value == pytest.approx(scale, rel=1e-3)
    assert finding.confidence >= 0.5


def test_adam_does_not_feel_it() -> None:
    finding = CHECK.detect(scaled(0.5, "AdamW"))
    assert isinstance(finding, Finding)
    assert finding.confidence < 0.5
    assert finding.severity_points == 0.0


def test_the_mean_loss_and_other_scales_are_silent() -> None:
    assert isinstance(CHECK.detect(scaled(1.0)), Clear)
    assert isinstance(CHECK.detect(scaled(0.7)), Clear)


def test_gradients_put_together_by_hand_are_not_judged() -> None:
    by_hand = of_ranks(scaled(0.5), wrappings=(replace(WRAPPING, wrapper=None, wrapped=False),))
    assert isinstance(CHECK.detect(by_hand), NotApplicable)


def test_accumulation_is_not_judged() -> None:
    case = two_ranks()
    halves = of_ranks(
        case,
        passes=lambda r: tuple(
            replace(p, steps=replace(own_steps(p.samples, 0.5), backwards=own_steps(p.samples).backwards * 2))
            if p.phase == "train" else p
            for p in r.passes
        ),
    )  # fmt: skip
    assert isinstance(CHECK.detect(halves), NotApplicable)
    assert isinstance(CHECK.detect(healthy()), NotApplicable)
