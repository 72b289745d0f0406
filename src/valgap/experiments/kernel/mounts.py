"""Mounts of the re-run's own: all is read-only but its folders; sockets, terminals and shared memory of others are not there.

Landlock forbids writing, but not changes of modes, owners, times and attributes, and lets a program speak to any socket that has
a path: the one of a container service is as good as root. Needs Linux 5.12 (mount_setattr).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from valgap.experiments.kernel.calls import call

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_SLAVE = 1, 2, 4, 8, 1 << 12, 1 << 14, 1 << 19
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
RDONLY = 1
SHARED, TERMINALS, NOTHING = "/dev/shm", "/dev/pts", "/dev/null"
O_PATH = 0o10000000
MOST_SHARED = 256  # things of others in shared memory that are shown, read-only
MOST_SOCKETS = 4096
DRIVERS = ("nvidia",)  # whose services a card's own library speaks to


@dataclass(frozen=True)
class Mounts:
    """What they keep from the program."""

    files: bool = False  # writing to files, and changing their modes, owners and times
    sockets: bool = False  # speaking to sockets with a path that others have opened
    shared_memory: bool = False  # that of others
    terminals: bool = False  # likewise


NO_MOUNTS = Mounts()


class _Attributes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "user_namespace"))


def make_private(folders: Sequence[str], sockets: Sequence[str]) -> Mounts:
    """Change the mounts of this process's own namespace so that nothing but ``folders`` can be written to; what of it there is.

    ``sockets``: their paths, as ``sockets_of_others`` gave them before.
    """
    here = os.getcwd()
    try:
        _mount(None, "/", None, MS_REC | MS_SLAVE)  # what others mount is seen, what is mounted here is not
    except OSError:
        return NO_MOUNTS
    there = [f for f in folders if os.path.isdir(f)]
    own = [f for f in there if _held(f, f, None, MS_BIND)]
    covered, shared = _cover(sockets, own), _own_shared_memory()
    terminals = _held("devpts", TERMINALS, "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620")
    if not shared:
        _held(SHARED, SHARED, None, MS_BIND)
    files = len(own) == len(there) and _read_only([*own, SHARED])
    with contextlib.suppress(OSError):
        os.chdir(here)  # else it stays below what has been mounted
    return Mounts(files, covered, shared, terminals)


def _mount(source: str | None, target: str, kind: str | None, flags: int, settings: str | None = None) -> None:
    encoded = [os.fsencode(t) if t is not None else None for t in (source, target, kind)]
    call("mount", *encoded, ctypes.c_ulong(flags), settings.encode() if settings else None)


def _held(source: str, target: str, kind: str | None, flags: int, settings: str | None = None) -> bool:
    try:
        _mount(source, target, kind, flags, settings)
    except OSError:
        return False
    return True


def _read_only(but: Sequence[str]) -> bool:
    """Make every mount read-only but those at these places."""
    try:
        _set(b"/", AT_RECURSIVE, _Attributes(set=RDONLY))
    except OSError:
        return False
    for place in but:
        with contextlib.suppress(OSError):
            _set(os.fsencode(place), 0, _Attributes(clear=RDONLY))
    return True


def _set(place: bytes, flags: int, attributes: _Attributes) -> None:
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    call("mount_setattr", ctypes.c_int(AT_FDCWD), place, ctypes.c_uint(flags), ctypes.byref(attributes), size)


def _own_shared_memory() -> bool:
    """Shared memory of one's own; what is in that of all, data sets too, can still be read."""
    if not os.path.isdir(SHARED):
        return True
    names = os.listdir(SHARED)
    if len(names) > MOST_SHARED:
        return False
    before = os.open(SHARED, O_PATH | os.O_CLOEXEC)
    try:
        if not _held("tmpfs", SHARED, "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777"):
            return False
        for name in names:
            _show(f"/proc/self/fd/{before}/{name}", f"{SHARED}/{name}")
    finally:
        os.close(before)
    return True


def _show(source: str, target: str) -> None:
    """What others have in shared memory; it becomes read-only with everything."""
    with contextlib.suppress(OSError):
        mode = os.lstat(source).st_mode
        if stat.S_ISLNK(mode):
            os.symlink(os.readlink(source), target)
        elif stat.S_ISDIR(mode):
            os.mkdir(target)
            _held(source, target, None, MS_BIND | MS_REC)
        elif stat.S_ISREG(mode):
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC))
            _held(source, target, None, MS_BIND)


def sockets_of_others() -> list[str]:
    """The paths of sockets that are open on this machine: of the network namespace that this process is in."""
    found: dict[str, None] = {}
    with contextlib.suppress(OSError), open("/proc/self/net/unix", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            fields = line.rstrip("\n").split(None, 7)
            if len(fields) == 8 and fields[7].startswith("/") and _is_socket(fields[7]):
                found[os.path.realpath(fields[7])] = None
    return list(found)


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def _cover(sockets: Sequence[str], own: Sequence[str]) -> bool:
    """Put nothing in the place of every socket that has a path outside the folders of the program."""
    if len(sockets) > MOST_SOCKETS:
        return False
    others = [s for s in sockets if not any(s.startswith(f + os.sep) for f in own) and not any(d in s for d in DRIVERS)]
    return [_held(NOTHING, path, None, MS_BIND) for path in others].count(False) == 0
