"""The program's own frames at this moment, looked at without leaving a trace in them."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Iterator
from typing import Any

MAX_FRAMES = 64


def program_frames() -> Iterator[types.FrameType]:
    """The frames of the program, innermost first: not torch's, not ours."""
    frame: types.FrameType | None = sys._getframe(1)
    for _ in range(MAX_FRAMES):
        if frame is None:
            return
        module = frame.f_globals.get("__name__", "")
        if not module.startswith(("torch.", "valgap.")):
            yield frame
        frame = frame.f_back


def locals_of(frame: types.FrameType) -> dict[str, Any]:
    """A frame's variables by name. Before Python 3.13 the frame would keep a copy, and with it what the program drops."""
    kept = frame.f_locals
    found = dict(kept)
    # Held by the frame, by us and as the argument of getrefcount: one more is the program's own locals(), which must stay.
    if sys.version_info < (3, 13) and frame.f_code.co_flags & inspect.CO_OPTIMIZED and sys.getrefcount(kept) <= 3:
        kept.clear()
    return found
