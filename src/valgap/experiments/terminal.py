"""What a re-run reads from: nothing, or, where the recorded program had a terminal, one of the same size at which nobody types.

Some programs ask how wide their terminal is before they do anything, and end where there is none.
"""

from __future__ import annotations

import os
import struct
import subprocess

END = b"\x04"  # Ctrl-D: who reads gets to the end of the input, as from nothing
ENDS = 256


class StandardInput:
    """One for all re-runs of a program; ``file`` is what they are started with.

    Args:
        size: (columns, lines) of the recorded program's terminal; None where it had none.
    """

    def __init__(self, size: tuple[int, int] | None) -> None:
        self.file = subprocess.DEVNULL
        self._ends: list[int] = []
        if size is None:
            return
        try:
            import fcntl
            import pty
            import termios
        except ImportError:  # Windows
            return
        try:
            ours, theirs = pty.openpty()
        except OSError:  # there are no more
            return
        self._ends = [ours, theirs]
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        os.write(ours, END * ENDS)
        self.file = theirs

    def close(self) -> None:
        """No re-run is to come."""
        for end in self._ends:
            os.close(end)
        self._ends, self.file = [], subprocess.DEVNULL
