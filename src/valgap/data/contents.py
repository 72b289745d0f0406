"""The bytes behind the address of an image, and the state that they are in."""

from __future__ import annotations

from pathlib import Path


def read_content(address: str) -> bytes:
    """The bytes of an image. Raises OSError where they cannot be had."""
    return Path(address).read_bytes()


def state_of(address: str) -> str:
    """What changes when the bytes change, without reading them; "" where there are none."""
    try:
        found = Path(address).stat()
    except OSError:
        return ""
    return f"{found.st_size} {found.st_mtime_ns}"
