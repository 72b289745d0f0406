"""What a re-run is told, so that its loggers and hubs stay off the network."""

from __future__ import annotations

import os
from pathlib import Path

from valgap.experiments.offline import environment


def test_loggers_are_offline() -> None:
    variables = environment(Path(os.sep) / "scratch", Path(os.sep) / "t")
    assert variables["WANDB_MODE"] == "disabled"
    assert variables["HF_HUB_OFFLINE"] == "1"
