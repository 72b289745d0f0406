"""``with valgap.watch(): ...``: the recorder for a notebook or a part of a program."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from valgap.record.place import place_of, shared_run_directory
from valgap.seams.session import CLOSING_SHARE, Session


@contextmanager
def watch(out: str | os.PathLike[str] | None = None, *, closing: float = CLOSING_SHARE) -> Iterator[Path]:
    """The run directory of what is recorded inside the ``with`` block.

    Args:
        out: where to write; default ``runs/DATE-TIME-watch``.
        closing: share of the block's time that the closing measurements may take; 0 turns them off.

    Raises:
        RecordError: ``out`` already holds a record, or cannot be written.
    """
    place = place_of()
    folder = shared_run_directory(Path(out) if out is not None else None, "watch", place)
    session = Session(folder, list(sys.argv), "watch", place=place)
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
