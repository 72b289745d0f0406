"""One `valgap.watch` that begins in one callback and ends in another."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from valgap.seams.hosting.session import CLOSING_SHARE
from valgap.seams.hosting.watch import warn, watch


class UnfinishedError(RuntimeError):
    """The training ended without telling its callbacks: its framework tells them of success only."""


class Recording:
    """What the callbacks share. A second fit is another run: ``out``, ``out-2``, ``out-3``."""

    def __init__(
        self,
        out: str | os.PathLike[str] | None = None,
        closing: float = CLOSING_SHARE,
        live: bool = False,
        tell: Callable[[str], None] = warn,
        stop_on: str | None = None,
    ) -> None:
        self.folders: list[Path] = []
        self.stopped_by = ""  # the code of the cause after which this fit is to be ended
        self._out, self._closing, self._live, self._tell, self._stop_on = out, closing, live, tell, stop_on
        self._open: AbstractContextManager[Path] | None = None

    def begin(self) -> None:
        """Start to record; a fit that never said that it ended is closed first, as unfinished."""
        self.fail(UnfinishedError("the next fit began before this one had ended"))
        out = self._out
        if out is not None and self.folders:
            out = f"{os.fspath(out)}-{len(self.folders) + 1}"
        watching = watch(
            out, closing=self._closing, live=self._live, stop_on=self._stop_on, tell=self._tell, stop=self._to_be_ended
        )
        self.folders.append(watching.__enter__())
        self._open = watching
        atexit.register(self._abandon)

    def end(self) -> None:
        """Stop to record, and make the closing measurements."""
        watching = self._take()
        if watching is not None:
            watching.__exit__(None, None, None)

    def fail(self, error: BaseException) -> None:
        """Stop to record a fit that failed; nothing is measured."""
        watching = self._take()
        if watching is not None:
            watching.__exit__(type(error), error, error.__traceback__)  # takes note of it; the caller has it already

    @property
    def ends_now(self) -> bool:
        """Whether the fit is to be ended between two batches. Of several processes all must stop at one place: never here."""
        return bool(self.stopped_by) and not _several_processes()

    @property
    def ends_here(self) -> bool:
        """Whether it is to be ended where all processes of the job ask: what the first one knows counts for all."""
        if self._stop_on is None or not _several_processes():
            return bool(self.stopped_by)
        import torch.distributed as dist

        told: list[bool] = [bool(self.stopped_by)]
        dist.broadcast_object_list(told, src=0)
        return told[0]

    def _to_be_ended(self, code: str) -> None:
        self.stopped_by = code

    def _take(self) -> AbstractContextManager[Path] | None:
        watching, self._open, self.stopped_by = self._open, None, ""
        atexit.unregister(self._abandon)
        return watching

    def _abandon(self) -> None:
        self.fail(UnfinishedError("the program ended before the fit had"))


def _several_processes() -> bool:
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
