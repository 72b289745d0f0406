"""How much arms may write into the folder that they share, together."""

from __future__ import annotations

import shutil
from pathlib import Path

# Nothing is stored on a disk that is nearly full.
MIN_FREE_BYTES = 4 << 30
COUNTED_EVERY = 32  # files of this process, after which those of the others are looked at again


class SharedRoom:
    """Room for files of one kind in ``folder``: ``most_bytes`` for all processes together.

    Counted when it is asked for, not when it is made: a program may have been forked since.
    """

    def __init__(self, folder: Path, names: str, most_bytes: int) -> None:
        self.folder, self.names, self.most_bytes = folder, names, most_bytes
        self.closed = False
        self._used = self._asked = 0

    def takes(self, size: int, share: float = 1.0) -> bool:
        """Whether a file of ``size`` bytes may be written, which it then counts, where no more than ``share`` would be used."""
        if self.closed:
            return False
        if self._asked % COUNTED_EVERY == 0:
            self._used = sum(f.stat().st_size for f in self.folder.glob(self.names))
            self.closed = shutil.disk_usage(self.folder).free < MIN_FREE_BYTES
        self._asked += 1
        if self.closed or self._used + size > share * self.most_bytes:
            return False
        self._used += size
        return True
