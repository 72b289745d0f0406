"""Whether a path leads to a file that can be read to an end."""

from __future__ import annotations

import errno
import os
import stat


def regular(path: str) -> str:
    """The path, where a regular file is behind it: a device may have no end, and a pipe no beginning. Raises OSError."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except ValueError as error:  # a zero byte
        raise OSError(errno.EINVAL, "no file has such a name", path) from error
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "no regular file", path)
    return path
