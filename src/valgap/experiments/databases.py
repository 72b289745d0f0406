"""Databases that a program keeps in a file and opens in C: SQLite and HDF5."""

from __future__ import annotations

import errno
import functools
import os
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from valgap.experiments.overlay import Overlay

# What SQLite keeps beside a file: both belong to what it holds.
BESIDE = ("-wal", "-journal")
# A larger one is read where it lies, and cannot be written to.
LARGEST_COPY = 1 << 30
RDWR, EXCL = 1, 4  # of HDF5


def redirect_databases(overlay: Overlay, after_import: Callable[[str, Callable[[Any], None]], None]) -> None:
    """Have sqlite3 and h5py open copies, now or as soon as they are there."""
    after_import("sqlite3", functools.partial(_redirect_sqlite, overlay))
    after_import("h5py", functools.partial(_redirect_hdf, overlay))


def _redirect_sqlite(overlay: Overlay, module: Any) -> None:
    original = module.connect

    @functools.wraps(original)
    def connect(database: Any, *args: Any, **kwargs: Any) -> Any:
        return _connect(overlay, original, database, *args, **kwargs)

    for name in ("sqlite3", "sqlite3.dbapi2", "_sqlite3"):
        if name in sys.modules:
            setattr(sys.modules[name], "connect", connect)  # noqa: B010


def _connect(overlay: Overlay, original: Callable[..., Any], database: Any, *args: Any, **kwargs: Any) -> Any:
    if isinstance(database, (str, bytes, os.PathLike)):
        is_address = bool(args[6] if len(args) > 6 else kwargs.get("uri", False))
        led = _led(overlay, os.fsdecode(database), is_address)
        if led.startswith("file:") and not is_address:
            args, kwargs = args[:6], {**kwargs, "uri": True}
        database = led
    return original(database, *args, **kwargs)


def _led(overlay: Overlay, database: str, is_address: bool) -> str:
    """What is opened in the place of this file, or of this address of one (``file:PATH?mode=ro``)."""
    path, settings = database, ""
    if is_address and database.startswith("file:"):
        place, _, settings = database.removeprefix("file:").partition("?")
        path = unquote("/" + place[2:].partition("/")[2] if place.startswith("//") else place)
    elif database.startswith("file:"):
        return database
    mode = parse_qs(settings).get("mode", [""])[0]
    if path in ("", ":memory:") or mode == "memory":
        return database
    path = overlay.followed(path)
    if mode == "ro" or _too_large(overlay, path):
        led, settings = overlay.read(path), settings or "mode=ro"
        return f"file:{quote(os.fsdecode(led))}?{settings}"
    absolute = overlay.covered(path)
    if absolute is not None and not overlay.visible(os.path.dirname(absolute)):
        return database  # there is no such folder: SQLite says so in its own words
    for end in BESIDE:
        if overlay.exists(path + end):
            overlay.write(path + end, keep=True)
    led = overlay.write(path, keep=True)
    return f"file:{quote(led)}?{settings}" if settings else str(led)


def _too_large(overlay: Overlay, path: str) -> bool:
    if overlay.covered(path) is None or overlay.read(path) != path:
        return False
    try:
        return bool(overlay.real.stat(path).st_size > LARGEST_COPY)
    except OSError:
        return False


def _redirect_hdf(overlay: Overlay, module: Any) -> None:
    """h5py opens and makes every file by these."""
    h5f = module.h5f
    opened, created, asked, called = h5f.open, h5f.create, h5f.is_hdf5, h5f.get_name

    def open_file(name: Any, flags: int = RDWR, *args: Any, **kwargs: Any) -> Any:
        path = overlay.followed(os.fsdecode(name))
        led = overlay.write(path, keep=True) if flags & RDWR and overlay.exists(path) else overlay.read(path)
        return opened(os.fsencode(led), flags, *args, **kwargs)

    def create(name: Any, flags: int = 2, *args: Any, **kwargs: Any) -> Any:
        path = overlay.followed(os.fsdecode(name))
        if flags & EXCL and overlay.exists(path):
            raise FileExistsError(errno.EEXIST, f"Unable to create file ({os.strerror(errno.EEXIST)})", os.fsdecode(name))
        return created(os.fsencode(overlay.write(path)), flags, *args, **kwargs)

    def is_hdf5(name: Any) -> Any:
        return asked(os.fsencode(overlay.found(os.fsdecode(name))))

    def get_name(file: Any) -> Any:
        return os.fsencode(overlay.original(os.fsdecode(called(file))))

    h5f.open, h5f.create, h5f.is_hdf5, h5f.get_name = open_file, create, is_hdf5, get_name
