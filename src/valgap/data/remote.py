"""Files that lie elsewhere, by fsspec: listed once, read in whole or in part, with few retries.

A file that cannot be reached is no damaged file: what follows from it would be said of images that nobody saw. So a server that
does not answer, or does not let us in, ends the check with an UnreachableError; what was seen until then is kept.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar
from urllib.parse import unquote

from valgap.errors import DataError, UnreachableError

# A read is tried so often, with so many seconds before the second try and twice as many before each further one.
TRIES, WAIT_S = 4, 0.5
# Words in the errors of stores that do not let us in; more tries do not help.
REFUSED = ("credential", "forbidden", "access denied", "accessdenied", "signature", "unauthorized", "invalidaccess")
REFUSED_STATUS = (401, 403)
# boto3 would try each of our tries several times itself.
OPTIONS: dict[str, dict[str, Any]] = {"s3": {"config_kwargs": {"retries": {"max_attempts": 0}}}}
Result = TypeVar("Result")
_states: dict[str, str] = {}


def file_system(address: str) -> tuple[Any, str]:
    """(fsspec's file system of an address, the path in it).

    Raises:
        UnreachableError: fsspec, or what it needs for this kind of address, is not installed; or no address is like that.
    """
    try:
        from fsspec.core import url_to_fs

        found: tuple[Any, str] = url_to_fs(address, **OPTIONS.get(address.partition("://")[0], {}))
        return found
    except ImportError as error:
        kind = address.partition("://")[0]
        extra = "s3fs" if kind == "s3" else "gcsfs" if kind in ("gs", "gcs") else "fsspec and what it needs"
        raise UnreachableError(f"{address} cannot be read without {extra}: pip install 'valgap[remote]' ({error})") from error
    except ValueError as error:
        raise UnreachableError(f"{address} is no address that fsspec knows: {error}") from error


def listed(address: str) -> list[tuple[str, str]]:
    """(name below the address, its own address) of all files there, in no order; their states are remembered.

    Raises:
        DataError: it cannot be listed.
    """
    system, path = file_system(address)
    root = system.unstrip_protocol(path).rstrip("/") + "/"
    out = []
    folders = [path]
    while folders:  # folder by folder: a failure costs one of them, and not the whole listing
        here = folders.pop()
        try:
            found: list[dict[str, Any]] = tried(partial(system.ls, here, detail=True), f"{address} (its listing)")
        except FileNotFoundError as error:
            raise DataError(f"there is no {address}") from error
        for facts in found:
            name = str(facts["name"])
            if name.rstrip("/") == here.rstrip("/"):
                continue
            if facts.get("type") == "directory":
                folders.append(name)
                continue
            full = system.unstrip_protocol(name)
            _states[full] = _state(facts)
            below = full.removeprefix(root)
            out.append((unquote(below) if full.startswith(("http://", "https://")) else below, full))
    return out


def read(address: str, start: int | None = None, size: int | None = None) -> bytes:
    """The bytes of a file, or ``size`` of them from ``start`` on. Raises OSError where there is no such file."""
    system, path = file_system(address)
    end = start + size if start is not None and size is not None else None
    found: bytes = tried(lambda: system.cat_file(path, start=start, end=end), address)
    return found


def state_of(address: str) -> str:
    """Size and mark of a file, as its listing told; "" where there is none."""
    if address not in _states:
        system, path = file_system(address)
        try:
            _states[address] = _state(tried(lambda: system.info(path), address))
        except OSError:
            return ""
    return _states[address]


class RangeFile(io.RawIOBase):
    """A remote file that can be sought in; each part is read, and tried again, by itself."""

    def __init__(self, address: str) -> None:
        system, path = file_system(address)
        self._address, self._at = address, 0
        self._size = int(tried(lambda: system.info(path), address)["size"])

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self._size - self._at))
        if count:
            buffer[:count] = read(self._address, self._at, count)
            self._at += count
        return count


def tried(act: Callable[[], Result], address: str) -> Result:
    """What ``act`` gives, within TRIES. Raises FileNotFoundError at once, else UnreachableError in the end."""
    for turn in range(TRIES):
        try:
            return act()
        except FileNotFoundError:
            raise
        except Exception as error:  # every store has its own kinds
            words = f"{type(error).__name__}: {error}"
            refused = any(w in words.lower() for w in REFUSED) or getattr(error, "status", None) in REFUSED_STATUS
            if refused or isinstance(error, PermissionError):
                raise UnreachableError(f"no access to {address} ({words[:200]}): are there credentials for it?") from error
            if turn + 1 == TRIES:
                raise UnreachableError(
                    f"{address} could not be read in {TRIES} tries ({words[:200]}): call it again, it goes on where it was"
                ) from error
        time.sleep(WAIT_S * 2**turn)
    raise AssertionError("unreachable")


def _state(facts: dict[str, Any]) -> str:
    mark = next((str(facts[k]) for k in ("ETag", "etag", "md5Hash", "mtime", "LastModified", "created") if facts.get(k)), "")
    return f"{facts.get('size')} {mark}"
