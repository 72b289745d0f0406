"""Asking whether a process is there."""

from __future__ import annotations

import os
import sys


def ask_for(pid: int) -> None:
    """Nothing, where a process of this machine has that number.

    Raises:
        ProcessLookupError: none has.
        PermissionError: it is another user's.
    """
    if sys.platform == "win32":  # signal 0 is Ctrl-C there
        import psutil

        if not psutil.pid_exists(pid):
            raise ProcessLookupError(pid)
    else:
        os.kill(pid, 0)  # no signal: only asks
