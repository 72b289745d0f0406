"""Experiment loggers: what they hold afterwards, by their own readers; what is said where one is missing."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from valgap.errors import ConfigError
from valgap.training.fit import EpochRow
from valgap.training.loggers import Loggers


def write(name: str, out: Path) -> None:
    """Two epochs, of which the first has no training loss."""
    loggers = Loggers([name, name], out)
    loggers.settings({"backbone": "efficientnet_lite0", "epochs": None})
    loggers.row(EpochRow(0, math.nan, 0.5, 1.2))
    loggers.row(EpochRow(1, 0.7, 0.6, 1.0))
    loggers.close()


def test_an_unknown_name_and_a_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="tensorboard, mlflow, wandb, not 'comet'"):
        Loggers(["comet"], tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"valgap\[log\]"):
        Loggers(["wandb"], tmp_path)


@pytest.mark.slow
def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    write("mlflow", tmp_path)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("valgap").experiment_id])
    assert run.data.params["backbone"] == "efficientnet_lite0"
    assert [m.value for m in client.get_metric_history(run.info.run_id, "val/accuracy")] == [0.5, 0.6]
    assert [m.value for m in client.get_metric_history(run.info.run_id, "train/loss")] == [0.7]


@pytest.mark.slow
def test_wandb_stays_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    write("wandb", tmp_path)
    wandb.teardown()  # as at the end of the process: only then everything is on the disk
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert b"val/accuracy" in file.read_bytes()
