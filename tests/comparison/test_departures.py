"""One thing is changed in a program: that is what the comparison tells first. Programs that are alike are never blamed."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.comparison.programs import recorded
from valgap.cli import app
from valgap.comparison.result import compare
from valgap.report.compare_view import comparison_to_json, show_comparison
from valgap.types import Comparison, RunRecord


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return recorded(tmp_path_factory.mktemp("plain") / "r")


def compared(plain: RunRecord, folder: Path, **changes: Any) -> Comparison:
    return compare(plain, recorded(folder / "r", **changes))


PARTED: list[tuple[dict[str, Any], str]] = [
    ({"dropped": 6}, "data"),
    ({"batch": 4}, "drawn"),
    ({"shuffle": False}, "drawn"),
    ({"train_scale": 1.1}, "images"),
    ({"noise": 0.3}, "images"),
    ({"relabelled": 10}, "targets"),
    ({"head_times": 5.0}, "weights"),
    ({"gelu": True}, "logits"),
    ({"dropout": 0.3}, "mode"),
    ({"half": True}, "mode"),
    ({"smoothing": 0.2}, "loss"),
    ({"times": 3.0}, "loss"),
    ({"clear": False}, "gradients"),
    ({"accumulate": 2}, "gradients"),
    ({"clip": 0.01}, "gradients"),
    ({"decay": 0.3}, "optimizer"),
    ({"optimizer": "AdamW"}, "optimizer"),
    ({"frozen": True}, "optimizer"),
    ({"rate": 0.2}, "rate"),
    ({"momentum": 0.01}, "statistics"),
    ({"val_scale": 1.5}, "val images"),
    ({"eval_mode": False}, "val mode"),
    ({"epochs": 1}, "length"),
    ({"off": 0.1}, "metric"),
]


@pytest.mark.parametrize(("changes", "quantity"), PARTED, ids=lambda v: v if isinstance(v, str) else next(iter(v)))
def test_the_change_is_told_first(plain: RunRecord, tmp_path: Path, changes: dict[str, Any], quantity: str) -> None:
    told = compared(plain, tmp_path, **changes)
    assert told.verdict == "parted" and told.headline is not None
    assert told.headline.quantity == quantity, told.why


# The same under another seed: chance parts the runs at once, and what remains must be seen in spite of it.
UNDER_CHANCE = [c for c in PARTED if next(iter(c[0])) not in ("gelu", "momentum", "clear", "noise", "train_scale")]


@pytest.mark.parametrize(("changes", "quantity"), UNDER_CHANCE, ids=lambda v: v if isinstance(v, str) else next(iter(v)))
def test_and_under_another_seed(plain: RunRecord, tmp_path: Path, changes: dict[str, Any], quantity: str) -> None:
    told = compared(plain, tmp_path, seed=3, **changes)
    assert told.headline is not None and told.headline.quantity == quantity, told.why


def test_a_learning_rate_that_parts_later_is_told_with_its_step(plain: RunRecord, tmp_path: Path) -> None:
    told = compared(plain, tmp_path, halve_after=1)
    assert told.headline is not None and (told.headline.quantity, told.headline.where) == ("rate", "epoch 2, step 1")
    assert told.parted is not None and told.parted.pass_index == 2 and told.parted.batch == 0


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "equal"),
        ({"parts": True}, "rounding"),
        ({"seed": 4}, "chance"),
        ({"draw_before": True}, "chance"),
    ],
)
def test_programs_that_are_alike_are_not_blamed(plain: RunRecord, tmp_path: Path, changes: dict[str, Any], verdict: str) -> None:
    told = compared(plain, tmp_path, **changes)
    assert (told.verdict, told.headline, told.departures) == (verdict, None, ())


def test_rounding_is_told_to_be_rounding_and_grows(plain: RunRecord, tmp_path: Path) -> None:
    told = compared(plain, tmp_path, train_scale=1.0000003)
    assert told.verdict == "rounding" and told.parted is not None
    assert (told.parted.quantity, told.parted.batch, told.parted.nature) == ("images", 0, "rounding")
    assert len(told.growth) >= 3 and all(d < 1e-2 for _, d in told.growth)


def test_random_reading_under_another_seed_is_chance(tmp_path: Path) -> None:
    first = recorded(tmp_path / "a", noise=0.3, dropout=0.2)
    told = compare(first, recorded(tmp_path / "b", noise=0.3, dropout=0.2, draw_before=True))
    assert told.verdict == "chance", told.why
    stronger = compare(first, recorded(tmp_path / "c", noise=1.0, dropout=0.2, seed=1))
    assert stronger.headline is not None and stronger.headline.quantity == "images"


ALIKE = (
    {"split": True},
    {"plateau": True, "epochs": 5},
    {"good_enough": 0.45, "epochs": 6},
    {"noise": 0.5, "dropout": 0.3},
    {"clip": 0.5},
)


@pytest.mark.parametrize("changes", ALIKE, ids=lambda c: next(iter(c)))
def test_no_seed_makes_a_difference_of_substance(tmp_path: Path, changes: dict[str, Any]) -> None:
    runs = [recorded(tmp_path / str(seed), seed=seed, **changes) for seed in range(4)]
    told = [compare(runs[0], other) for other in runs[1:]]
    assert [t.verdict for t in told] == ["chance"] * 3, [t.why for t in told]
    assert all(d.follows for t in told for d in t.departures)


def test_records_of_before_are_compared_by_what_they_hold(plain: RunRecord, tmp_path: Path) -> None:
    old = replace(plain, traced=(), sources=())
    told = compare(old, replace(recorded(tmp_path / "r", rate=0.2), traced=(), sources=()))
    assert told.headline is not None and told.headline.quantity == "rate" and len(told.missing) == 4
    assert compare(old, plain).verdict == "equal"


def test_both_views_hold_the_verdict(plain: RunRecord, tmp_path: Path) -> None:
    told = compared(plain, tmp_path, val_scale=1.5)
    body = json.loads(json.dumps(comparison_to_json(told), allow_nan=False))
    assert body["verdict"] == "parted" and body["headline"]["quantity"] == "val images"
    assert body["gain_points"]["nats"] is not None
    stream = io.StringIO()
    show_comparison(told, Console(file=stream, width=140))
    text = stream.getvalue()
    assert text.startswith("Verdict  parted") and "reading validation images" in text and "--budget" in text


def test_the_exit_status_tells_whether_they_part(plain: RunRecord, tmp_path: Path) -> None:
    other, same = recorded(tmp_path / "rate", rate=0.2), recorded(tmp_path / "same")
    runner = CliRunner()
    parted = runner.invoke(app, ["compare", plain.path, other.path, "--json"])
    assert parted.exit_code == 1 and json.loads(parted.stdout)["headline"]["quantity"] == "rate"
    equal = runner.invoke(app, ["compare", plain.path, same.path])
    assert equal.exit_code == 0 and "equal to the last bit" in " ".join(equal.stdout.split())
    # What was not recorded by `valgap run` cannot be run again, and says so.
    unproved = runner.invoke(app, ["compare", plain.path, other.path, "--budget", "5s", "--json"])
    assert [p["verdict"] for p in json.loads(unproved.stdout)["proofs"]] == ["not proved"]
