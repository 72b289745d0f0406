"""A Lightning callback that records every fit: ``Trainer(callbacks=[ValgapCallback()])``."""

from __future__ import annotations

import os
from typing import Any

from valgap.integrations.recording import Recording
from valgap.seams.hosting.session import CLOSING_SHARE

try:
    from lightning.pytorch import Callback
    from lightning.pytorch.utilities import rank_zero_warn
except ModuleNotFoundError:
    from pytorch_lightning import Callback
    from pytorch_lightning.utilities import rank_zero_warn


class ValgapCallback(Callback):
    """Records from the setup of a fit to its end; of several processes the first one alone.

    Args:
        out: the run directory, default ``runs/DATE-TIME-watch``; that of a second fit is ``out-2``.
        closing: share of the fit's time that the closing measurements may take; 0 turns them off.
        live: warn while it runs, as soon as a cause shows; the warnings are given by Lightning's ``rank_zero_warn``.
        stop_on: "suspected" ends the fit after the first such warning, by ``trainer.should_stop``;
            of several processes at the end of an epoch.
    """

    def __init__(
        self,
        out: str | os.PathLike[str] | None = None,
        *,
        closing: float = CLOSING_SHARE,
        live: bool = False,
        stop_on: str | None = None,
    ) -> None:
        super().__init__()
        self.recording = Recording(out, closing, live, rank_zero_warn, stop_on)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Before optimizers and loaders are made."""
        if stage == "fit" and trainer.is_global_zero:
            self.recording.begin()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Where Lightning looks whether to stop."""
        trainer.should_stop |= self.recording.ends_now

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Likewise, in all processes."""
        trainer.should_stop |= self.recording.ends_here

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """After the last epoch, while the model is where it was trained."""
        if stage == "fit":
            self.recording.end()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """A fit that failed or was interrupted."""
        self.recording.fail(exception)
