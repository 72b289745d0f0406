"""A callback of Hugging Face Trainer that records every training: ``Trainer(callbacks=[ValgapCallback()])``."""

from __future__ import annotations

import os
from typing import Any

from transformers import TrainerCallback
from transformers.utils import logging

from valgap.integrations.recording import Recording
from valgap.seams.hosting.session import CLOSING_SHARE

logger = logging.get_logger("transformers.valgap")  # below the library's own, whose level and handlers count


class ValgapCallback(TrainerCallback):
    """Records from the first step of ``trainer.train()`` to its end; of several processes the first one alone.

    Evaluations are seen where the Trainer makes them between (``eval_strategy="epoch"``); for a later ``trainer.evaluate()``
    put both calls inside ``valgap.watch``. The Trainer does not tell its callbacks of exceptions: the record of a training that
    failed is closed when the program ends.

    Args:
        out: the run directory, default ``runs/DATE-TIME-watch``; that of a second training is ``out-2``.
        closing: share of the training's time that the closing measurements may take; 0 turns them off.
        live: warn while it runs, as soon as a cause shows; the warnings are lines of transformers' logger.
        stop_on: "suspected" ends the training after the first such warning, by ``control.should_training_stop``;
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
        self.recording = Recording(out, closing, live, logger.warning, stop_on)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Before the first batch is read."""
        if state.is_world_process_zero:
            self.recording.begin()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Where the Trainer looks whether to stop."""
        control.should_training_stop |= self.recording.ends_now

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Likewise, in all processes."""
        control.should_training_stop |= self.recording.ends_here

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After the last epoch, and after the best model was loaded where that is asked for."""
        self.recording.end()
