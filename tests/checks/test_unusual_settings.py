"""TRN421."""

from typing import Any

import pytest
import torch

from tests.checks.cases import found, healthy, measured, quiet, trained_with, without
from valgap.checks.training.unusual_settings import CHECK, unusual
from valgap.seams.acting.step_acts import OptimizerSettings
from valgap.seams.looking.described import optimizer_settings
from valgap.types import Case, Clear, Finding, NotApplicable, OptimizerInfo


def behind(points: float) -> Case:
    """A run whose probe is so many points ahead of it."""
    case = healthy()
    assert case.run.closing is not None
    reached = case.run.closing.rescores["val_eval"].accuracy
    return measured(case, probe_final=min(1.0, reached + points / 100), probe_n=200)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("Adam", {"eps": 1.0, "beta1": 0.9, "beta2": 0.999}),
        ("AdamW", {"eps": 1e-8, "beta1": 0.999, "beta2": 0.9}),
        ("Adam", {"eps": 1e-8, "beta1": 0.9, "beta2": 0.5}),
        ("SGD", {"momentum": 1e-4, "dampening": 0}),
        ("SGD", {"momentum": 0.999}),
        ("SGD", {"momentum": 0.9, "dampening": 0.9}),
    ],
)
def test_values_that_nobody_means_are_told_where_the_training_stays_behind(kind: str, settings: dict[str, float]) -> None:
    case = trained_with(behind(20), kind, 1e-3, **settings)
    finding = found(CHECK.detect(case))
    assert finding.severity_points == pytest.approx(20, abs=1)
    assert isinstance(CHECK.detect(trained_with(behind(0), kind, 1e-3, **settings)), Clear)
    assert CHECK.treat is not None
    pair = {"betas": (settings.get("beta1", 0.9), settings.get("beta2", 0.999))}
    group: dict[str, Any] = {**settings} if kind == "SGD" else {"eps": settings["eps"], **pair}
    optimizer = type("Any", (), {"param_groups": [group]})()
    treatment = CHECK.treat(case, finding)
    OptimizerSettings(**treatment.settings).before_step(optimizer, None)  # type: ignore[union-attr]
    now = {**group, **{f"beta{i}": b for i, b in enumerate(group.get("betas", ()), 1)}}
    assert not unusual(OptimizerInfo(0, kind, (now,), (1,)))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("Adam", {"eps": 1e-3, "beta1": 0.9, "beta2": 0.95}),
        ("AdamW", {"eps": 1e-8, "beta1": 0.5, "beta2": 0.999}),
        ("SGD", {"momentum": 0.0}),
        ("SGD", {"momentum": 0.99, "dampening": 0}),
        ("RMSprop", {"eps": 0.1, "momentum": 0.01}),
    ],
)
def test_usual_values_are_silent_however_far_the_training_stays_behind(kind: str, settings: dict[str, float]) -> None:
    assert isinstance(CHECK.detect(trained_with(behind(30), kind, 1e-3, **settings)), Clear)


def test_without_a_probe_it_is_a_hint_and_missing_parts_are_said() -> None:
    odd = trained_with(healthy(), "Adam", 1e-3, eps=1.0)
    if isinstance(CHECK.detect(odd), Finding):
        assert quiet(CHECK.detect(odd))
    assert isinstance(CHECK.detect(without(healthy(), "train")), NotApplicable)


def test_the_record_holds_both_betas() -> None:
    optimizer = torch.optim.Adam([torch.zeros(1)], betas=(0.8, 0.9))
    (group,) = optimizer_settings(optimizer)["groups"]
    assert (group["beta1"], group["beta2"]) == (0.8, 0.9)
