"""The curve of `valgap train` in the experiment logger of one's choice; nothing leaves the machine unless a server is named."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from valgap.errors import ConfigError
from valgap.training.fit import EpochRow
from valgap.training.scores import Scores

Value = str | int | float | bool | None


class Logger(Protocol):
    """Where settings, one row per epoch, and the final figures go."""

    def settings(self, values: Mapping[str, Value]) -> None:
        """What the training was called with."""

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """Figures of one epoch, or the final ones."""

    def close(self) -> None:
        """Write what is left."""


class TensorBoard:
    """Event files in ``RUN/tensorboard``: ``tensorboard --logdir runs``."""

    def __init__(self, out: Path) -> None:
        _needed("tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(out / "tensorboard"))

    def settings(self, values: Mapping[str, Value]) -> None:
        rows = "\n".join(f"| {k} | {v} |" for k, v in values.items())
        self.writer.add_text("settings", f"| setting | value |\n|---|---|\n{rows}", 0)

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class MLflow:
    """A run in ``RUN/mlflow.db``, or on the server that MLFLOW_TRACKING_URI names."""

    def __init__(self, out: Path) -> None:
        self.mlflow: Any = _needed("mlflow")
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            self.mlflow.set_tracking_uri(f"sqlite:///{(out / 'mlflow.db').resolve()}")
        self.mlflow.set_experiment("valgap")
        self.mlflow.start_run(run_name=out.name)

    def settings(self, values: Mapping[str, Value]) -> None:
        self.mlflow.log_params(dict(values))

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        self.mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        self.mlflow.end_run()


class WandB:
    """An offline run in ``RUN/wandb`` (``wandb sync`` sends it), unless WANDB_MODE says otherwise."""

    def __init__(self, out: Path) -> None:
        wandb: Any = _needed("wandb")
        mode = os.environ.get("WANDB_MODE", "offline")
        self.run = wandb.init(project="valgap", name=out.name, dir=str(out), mode=mode, settings=wandb.Settings(silent=True))

    def settings(self, values: Mapping[str, Value]) -> None:
        self.run.config.update(dict(values))

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        self.run.finish()


KINDS: dict[str, type[TensorBoard] | type[MLflow] | type[WandB]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WandB,
}


def check_names(names: Sequence[str]) -> None:
    """Raises ConfigError where one of them is no logger."""
    unknown = [n for n in names if n not in KINDS]
    if unknown:
        raise ConfigError(f"--log takes {', '.join(KINDS)}, not {unknown[0]!r}")


class Loggers:
    """All loggers of one training."""

    def __init__(self, names: Sequence[str], out: Path) -> None:
        """Raises ConfigError for an unknown name, or where the package is not installed."""
        check_names(names)
        self.all: list[Logger] = [KINDS[n](out) for n in dict.fromkeys(names)]
        self.epoch = 0

    def settings(self, values: Mapping[str, Value]) -> None:
        for one in self.all:
            one.settings(values)

    def row(self, row: EpochRow) -> None:
        """One epoch; what is not known is left out."""
        self.epoch = row.epoch
        found = {"train/loss": row.train_loss, "val/loss": row.val_loss, "val/accuracy": row.val_accuracy}
        self._numbers(found, row.epoch)

    def final(self, sides: Mapping[str, Scores | None]) -> None:
        """The kept weights' figures for train, val and test, under ``final/``, at the last epoch."""
        found: dict[str, float] = {}
        for side, scores in sides.items():
            if scores is not None:
                found |= {f"final/{side}_accuracy": scores.accuracy, f"final/{side}_loss": scores.nll}
        self._numbers(found, self.epoch)

    def close(self) -> None:
        for one in self.all:
            one.close()

    def _numbers(self, values: Mapping[str, float], step: int) -> None:
        known = {k: v for k, v in values.items() if not math.isnan(v)}
        for one in self.all:
            one.numbers(known, step)


def _needed(name: str) -> ModuleType:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(f"--log {name} needs a package that is not installed ({error}): pip install 'valgap[log]'") from error
