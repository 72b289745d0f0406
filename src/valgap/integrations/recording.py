"""One `valgap.watch` that begins in one callback and ends in another."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from valgap.seams.session import CLOSING_SHARE
from valgap.seams.watch import warn, watch


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
    ) -> None:
        self.folders: list[Path] = []
        self._out, self._closing, self._live, self._tell = out, closing, live, tell
        self._open: AbstractContextManager[Path] | None = None

    def begin(self) -> None:
        """Start to record; a fit that never said that it ended is closed first, as unfinished."""
        self.fail(UnfinishedError("the next fit began before this one had ended"))
        out = self._out
        if out is not None and self.folders:
            out = f"{os.fspath(out)}-{len(self.folders) + 1}"
        watching = watch(out, closing=self._closing, live=self._live, tell=self._tell)
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

    def _take(self) -> AbstractContextManager[Path] | None:
        watching, self._open = self._open, None
        atexit.unregister(self._abandon)
        return watching

    def _abandon(self) -> None:
        self.fail(UnfinishedError("the program ended before the fit had"))
