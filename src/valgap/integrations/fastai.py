"""A fastai callback that records every fit: ``learn.fit(3, cbs=ValgapCallback())``."""

from __future__ import annotations

import os

from fastai.callback.core import Callback
from fastai.optimizer import OptimWrapper
from torch.utils.data import DataLoader

from valgap.errors import ValgapError
from valgap.integrations.recording import Recording
from valgap.seams.session import CLOSING_SHARE


class ValgapCallback(Callback):
    """Records each fit over torch's loaders and optimizer; ``learn.lr_find()`` and ``learn.get_preds()`` are no fit.

    fastai's own ``DataLoader`` and ``Optimizer`` are no torch ones, so that nothing of them passes the seams: a fit with them is
    refused before it begins. ``fine_tune`` makes two fits, which are two runs. fastai does not tell its callbacks of exceptions:
    the record of a fit that failed is closed when the program ends.

    Args:
        out: the run directory, default ``runs/DATE-TIME-watch``; that of a second fit is ``out-2``.
        closing: share of the fit's time that the closing measurements may take; 0 turns them off.
    """

    # After the callbacks that put model and data on their device, and before those that show progress.
    order = 5

    def __init__(self, out: str | os.PathLike[str] | None = None, *, closing: float = CLOSING_SHARE) -> None:
        super().__init__()
        self.recording = Recording(out, closing)

    def before_fit(self) -> None:
        """Before the first batch is read. Raises ValgapError where fastai's own loaders or optimizer are used."""
        if hasattr(self.learn, "lr_finder") or hasattr(self, "gather_preds"):
            return
        if not all(isinstance(loader, DataLoader) for loader in self.learn.dls.loaders):
            raise ValgapError(
                "fastai's own DataLoader cannot be recorded: give torch's, Learner(DataLoaders(train_loader, val_loader), ...)"
            )
        if not isinstance(self.learn.opt, OptimWrapper):
            raise ValgapError(
                "fastai's own optimizer cannot be recorded: give torch's, "
                "Learner(..., opt_func=partial(OptimWrapper, opt=torch.optim.Adam))"
            )
        self.recording.begin()

    def after_fit(self) -> None:
        """After the last epoch."""
        self.recording.end()
