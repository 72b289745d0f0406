"""Where the time of a pass goes, as the program's own thread sees it: what a GPU was given counts where it is waited for."""

from __future__ import annotations

import time
from typing import Any

LOADING, FORWARD, BACKWARD, STEP = "loading", "forward", "backward", "step"
KINDS = (LOADING, FORWARD, BACKWARD, STEP)


class TimeSpent:
    """A clock that is told what begins; that ends with whatever is seen next at a seam."""

    def __init__(self) -> None:
        self._doing = ""
        self._since = 0.0

    def begins(self, kind: str) -> None:
        """Called last at a seam, so that none of our own looking counts."""
        self._doing, self._since = kind, time.perf_counter()

    def ends(self, walk: Any) -> None:
        """Called first at a seam. ``walk``: whose batch it was; None where that is not known."""
        if self._doing and walk is not None:
            walk.spent[self._doing] += time.perf_counter() - self._since
        self._doing = ""
