"""A fastai callback that records every fit: ``learn.fit(3, cbs=ValgapCallback())``."""

from __future__ import annotations

import os

from fastai.callback.core import Callback, CancelFitException

from valgap.integrations.recording import Recording
from valgap.seams.hosting.session import CLOSING_SHARE


def _print(text: str) -> None:
    print(text, flush=True)


class ValgapCallback(Callback):
    """Records each fit, with fastai's own loaders and optimizer or with torch's; ``lr_find`` and ``get_preds`` are no fit.

    Of fastai's own optimizer the steps are seen by the weights that they change; its learning rates are not. ``fine_tune`` makes
    two fits, which are two runs. fastai does not tell its callbacks of exceptions: the record of a fit that failed is closed
    when the program ends.

    Args:
        out: the run directory, default ``runs/DATE-TIME-watch``; that of a second fit is ``out-2``.
        closing: share of the fit's time that the closing measurements may take; 0 turns them off.
        live: warn while it runs, as soon as a cause shows; the warnings are printed.
        stop_on: "suspected" ends the fit after the first such warning, by ``CancelFitException``;
            of several processes at the end of an epoch.
    """

    # After the callbacks that put model and data on their device, and before those that show progress.
    order = 5

    def __init__(
        self,
        out: str | os.PathLike[str] | None = None,
        *,
        closing: float = CLOSING_SHARE,
        live: bool = False,
        stop_on: str | None = None,
    ) -> None:
        super().__init__()
        self.recording = Recording(out, closing, live, _print, stop_on)

    def before_fit(self) -> None:
        """Before the first batch is read."""
        if hasattr(self.learn, "lr_finder") or hasattr(self, "gather_preds"):
            return
        self.recording.begin()

    def after_batch(self) -> None:
        """Where a fit may be cancelled."""
        if self.recording.ends_now:
            raise CancelFitException

    def before_epoch(self) -> None:
        """Likewise, in all processes; the epoch before has been told whole."""
        if self.recording.ends_here:
            raise CancelFitException

    def after_fit(self) -> None:
        """After the last epoch."""
        self.recording.end()
