"""The bytes behind the address of an image, and the state that they are in.

An address is a path, a place inside a container (``zip://FILE#PLACE``, ``tar://``, ``parquet://``), or that of a remote file
(``s3://bucket/key``), for which fsspec does the talking. A container may be remote itself. Nothing is copied to disk.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from valgap.data import containers, remote
from valgap.data.regular import regular

MEMBERS = {"zip": containers.read_zipped, "tar": containers.read_tarred, "parquet": containers.read_row}


def is_address(text: str) -> bool:
    """Whether it is more than a path of this machine."""
    return "://" in text


def read_content(address: str | os.PathLike[str]) -> bytes:
    """The bytes of an image.

    Raises:
        OSError: they are not there, or damaged.
        DataError: what holds them cannot be reached.
    """
    text = os.fspath(address)
    kind, found, inside = text.partition("://")
    if not found:
        return Path(regular(text)).read_bytes()
    if kind in MEMBERS:
        container, _, place = inside.rpartition("#")
        return MEMBERS[kind](container, place)
    return remote.read(text)


def state_of(address: str) -> str:
    """What changes when the bytes change, without reading them; "" where there are none."""
    kind, found, inside = address.partition("://")
    if found and kind in MEMBERS:
        return _state_of_container(inside.rpartition("#")[0])
    return remote.state_of(address) if found else _state_of_file(address)


@lru_cache(maxsize=256)
def _state_of_container(container: str) -> str:
    return remote.state_of(container) if is_address(container) else _state_of_file(container)


def _state_of_file(path: str) -> str:
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return ""
    return f"{found.st_size} {found.st_mtime_ns}"
