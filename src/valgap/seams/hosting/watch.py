"""``with valgap.watch(): ...``: the recorder for a notebook or a part of a program."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from valgap.errors import SuspectedWarning, ValgapError
from valgap.record.place import place_of, shared_run_directory
from valgap.seams.hosting.live import STOPPED, SUSPICION, Live, interrupt, stopped_after
from valgap.seams.hosting.session import CLOSING_SHARE, Session

# What is entered beside each block that is watched, with its run directory: a notebook shows the run there.
beside: list[Callable[[Path], AbstractContextManager[object]]] = []


def warn(text: str) -> None:
    """Give a warning as Python does."""
    warnings.warn(text, SuspectedWarning, stacklevel=2)


@contextmanager
def watch(
    out: str | os.PathLike[str] | None = None,
    *,
    closing: float = CLOSING_SHARE,
    live: bool = False,
    stop_on: str | None = None,
    tell: Callable[[str], None] = warn,
    stop: Callable[[str], None] = interrupt,
) -> Iterator[Path]:
    """The run directory of what is recorded inside the ``with`` block.

    Args:
        out: where to write; default ``runs/DATE-TIME-watch``.
        closing: share of the block's time that the closing measurements may take; 0 turns them off.
        live: warn while it runs, as soon as a cause shows; each cause once, also noted in ``live.jsonl`` there.
        stop_on: "suspected" ends the block after the first such warning (``live`` is implied), and closing measurements are left
            out; the record then has exit status 5.
        tell: given the text of each such warning, between two batches; by default it is a ``SuspectedWarning``.
        stop: how the block is ended, given the code of the cause; by default ``StoppedOnWarning``, a ``KeyboardInterrupt``, is
            raised before the next batch, or the program's own handler of SIGINT is called.

    Raises:
        RecordError: ``out`` already holds a record, or cannot be written.
        ValgapError: ``stop_on`` is another word.
        StoppedOnWarning: the block was ended after a warning, as was asked.
    """
    if stop_on not in (None, SUSPICION):
        raise ValgapError(f"stop_on takes {SUSPICION!r} or None, not {stop_on!r}")
    place = place_of()
    folder = shared_run_directory(Path(out) if out is not None else None, "watch", place)
    session = Session(folder, list(sys.argv), "watch", place=place)
    if live or stop_on:
        session.live = Live(folder, session.tell_live(tell), stop if stop_on else None)
    import torch  # noqa: F401  (a notebook may import it inside the block)

    session.start()
    with ExitStack() as shown:
        for show in beside:
            shown.enter_context(show(folder))
        try:
            yield folder
        except BaseException as error:
            session.finish(*(_stopped(session) or (1, f"{type(error).__name__}: {error}")))
            session.writer.close()
            raise
        stopped = _stopped(session)
        seconds = session.finish(*(stopped or (0, None)))
        session.close(seconds, closing if stopped is None else 0.0)


def _stopped(session: Session) -> tuple[int, str] | None:
    """(exit status, error) of a block that was ended after a warning, whatever it made of that."""
    code = session.live.stopped_by if session.live is not None else ""
    return (STOPPED, stopped_after(code)) if code else None
