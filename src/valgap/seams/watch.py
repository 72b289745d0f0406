"""``with valgap.watch(): ...``: the recorder for a notebook or a part of a program."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from valgap.errors import SuspectedWarning
from valgap.record.place import place_of, shared_run_directory
from valgap.seams.live import Live
from valgap.seams.session import CLOSING_SHARE, Session


def warn(text: str) -> None:
    """Give a warning as Python does."""
    warnings.warn(text, SuspectedWarning, stacklevel=2)


@contextmanager
def watch(
    out: str | os.PathLike[str] | None = None,
    *,
    closing: float = CLOSING_SHARE,
    live: bool = False,
    tell: Callable[[str], None] = warn,
) -> Iterator[Path]:
    """The run directory of what is recorded inside the ``with`` block.

    Args:
        out: where to write; default ``runs/DATE-TIME-watch``.
        closing: share of the block's time that the closing measurements may take; 0 turns them off.
        live: warn while it runs, as soon as a cause shows; each cause once, also noted in ``live.jsonl`` there.
        tell: given the text of each such warning, between two batches; by default it is a ``SuspectedWarning``.

    Raises:
        RecordError: ``out`` already holds a record, or cannot be written.
    """
    place = place_of()
    folder = shared_run_directory(Path(out) if out is not None else None, "watch", place)
    session = Session(folder, list(sys.argv), "watch", place=place)
    if live:
        session.live = Live(folder, session.tell_live(tell))
    import torch  # noqa: F401  (a notebook may import it inside the block)

    session.start()
    try:
        yield folder
    except BaseException as error:
        session.finish(1, f"{type(error).__name__}: {error}")
        session.writer.close()
        raise
    seconds = session.finish(0)
    session.close(seconds, closing)
