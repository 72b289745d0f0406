"""Symptoms of curves; and that a log never yields a finding."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from valgap.cli import app
from valgap.record.foreign import Curve, Log
from valgap.symptoms import as_json, symptoms


def log(**curves: list[float]) -> Log:
    return Log("log.csv", "CSV", {k: Curve(tuple(range(len(v))), tuple(v)) for k, v in curves.items()}, ())


def names(made: Log) -> list[str]:
    return [s.name for s in symptoms(made)]


@pytest.mark.parametrize("scale", [1, 100])
def test_gaps_in_fractions_and_percent(scale: float) -> None:
    far = log(train_accuracy=[0.6 * scale, 0.95 * scale], val_accuracy=[0.6 * scale, 0.6 * scale])
    above = log(train_accuracy=[0.4 * scale, 0.6 * scale], val_accuracy=[0.9 * scale, 0.9 * scale])
    near = log(train_accuracy=[0.4 * scale, 0.6 * scale], val_accuracy=[0.6 * scale, 0.58 * scale])
    assert "validation_far_below_training" in names(far)
    assert "validation_above_training" in names(above)
    assert names(near) == []


def test_the_course_of_validation() -> None:
    assert "validation_falls" in names(log(val_accuracy=[0.5, 0.8, 0.7]))
    assert names(log(val_accuracy=[0.7, 0.8, 0.8], val_loss=[0.6, 0.5, 0.9])) == ["only_validation_loss_rises"]
    assert names(log(val_loss=[0.6, 0.5, 0.9])) == ["validation_loss_rises"]
    assert names(log(val_accuracy=[0.5, 0.6, 0.7])) == ["still_improving_at_the_end"]


def test_training_and_rates() -> None:
    assert "training_does_not_progress" in names(log(train_loss=[2.3, 2.31, 2.29]))
    assert "training_does_not_progress" not in names(log(train_loss=[2.3, 1.2]))
    assert "nonfinite_values" in names(log(train_loss=[2.3, float("nan")]))
    assert names(log(learning_rate=[0.1, 0.001, 0.0001, 0.00001, 0.00001])) == ["rate_vanishes_early"]
    assert names(log(learning_rate=[0.1, 0.08, 0.05, 0.01, 0.0001])) == []


def test_no_curve_names_a_cause() -> None:
    body = as_json(log(train_loss=[2.3, float("nan")], train_accuracy=[0.5, 1.0], val_accuracy=[0.9, 0.1]))
    assert body["findings"] == []
    assert body["symptoms"] and all(len(s["could_be"]) > 0 for s in body["symptoms"])
    assert json.loads(json.dumps(body, allow_nan=False)) == json.loads(json.dumps(body))
    assert "valgap run" in body["next"]


def test_from_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "history.csv"
    file.write_text("epoch,accuracy,loss,val_accuracy,val_loss\n0,0.5,1.2,0.4,1.3\n1,0.9,0.3,0.5,1.2\n")
    told = CliRunner().invoke(app, ["diagnose", str(file), "--json"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["symptoms"][0]["name"] == "validation_far_below_training"
    shown = CliRunner().invoke(app, ["diagnose", str(file)])
    assert shown.exit_code == 0
    assert "valgap run" in shown.stdout and "cannot tell" in shown.stdout
    assert CliRunner().invoke(app, ["diagnose", str(file), "--budget", "5m"]).exit_code != 0
