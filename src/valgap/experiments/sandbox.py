"""Keeps a re-run from changing the user's world: what it writes, renames or deletes happens in a scratch folder.

Python's file functions are redirected: a write goes to a copy below ``scratch/world``, a deletion leaves a mark there,
and reads see the copy first, the mark next, the original last. Libraries that open files in C are redirected as well
(libraries.py). The kernel forbids the rest where it can (kernel/): every write outside the scratch folder, the network,
other processes; for code that is not Python and for child programs too. What cannot be redirected then fails instead of doing
harm. Where nothing keeps child programs from writing, they are refused.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from valgap.errors import ValgapError
from valgap.experiments.file_functions import OsFunctions, open_through
from valgap.experiments.kernel.entering import enter, narrow
from valgap.experiments.kernel.guards import Guards
from valgap.experiments.kernel.mounts import SHARED
from valgap.experiments.libraries import redirect_libraries
from valgap.experiments.offline import keep_to_this_program
from valgap.experiments.overlay import OS_FUNCTIONS, Overlay
from valgap.experiments.processes import keep_to_own_processes

PASS = ("/dev", "/proc", "/sys")


class Sandbox:
    """Redirects this process. ``enter`` once; there is no way out but the end of the process."""

    def __init__(self, scratch: Path, allowed: tuple[Path, ...] = ()) -> None:
        if sys.platform == "win32":  # the scratch world has no places for paths with drives
            raise ValgapError("re-runs and preflight need Linux or macOS: on Windows, use WSL")
        self._own = _folders(scratch, allowed)
        self.overlay = Overlay(os.path.join(self._own[0], "world"), (*self._own, *PASS), _in_shared_memory())

    def enter(self) -> Guards:
        """Begin; returns what the kernel guards as well. The process must have one thread."""
        os.makedirs(self.overlay.world, exist_ok=True)
        guards = enter(self._own)
        _redirect_os(self.overlay)
        _redirect_open(self.overlay)
        redirect_libraries(self.overlay)
        keep_to_this_program(self.overlay)
        if not guards.signals:
            keep_to_own_processes()
        if not guards.files:
            sys.addaudithook(_refuse_children)
        return guards

    def move(self, scratch: Path, allowed: tuple[Path, ...]) -> None:
        """Go on in another scratch folder, as a fork of the process that entered: what was written so far is copied there.

        Nothing that was allowed before and is not now can be written any more: neither the other world nor its temporary files.
        The folders must lie in those that were allowed before.
        """
        self._own = _folders(scratch, allowed)
        before, world = self.overlay.world, os.path.join(self._own[0], "world")
        if os.path.isdir(before):
            shutil.copytree(before, world, symlinks=True, dirs_exist_ok=True)
        os.makedirs(world, exist_ok=True)
        linked = self.overlay.links_known()
        self.overlay.world, self.overlay.free = world, (*self._own, *PASS)
        if linked:
            self.overlay.has_link()
        narrow(self._own)


def _folders(scratch: Path, allowed: tuple[Path, ...]) -> tuple[str, ...]:
    return tuple(os.path.realpath(f) for f in (scratch, *allowed))


def _in_shared_memory() -> tuple[str, ...]:
    """What others have there: it is as much theirs as any file. What a program makes there is the program's."""
    try:
        return tuple(os.path.join(SHARED, name) for name in os.listdir(SHARED))
    except OSError:
        return ()


def _redirect_os(overlay: Overlay) -> None:
    for name, function in OsFunctions(overlay).by_name().items():
        setattr(os, name, function)
    # These take the safe way through descriptors only where os says so; they must ask for paths now.
    os.supports_dir_fd.clear()
    os.supports_fd.discard(overlay.real.scandir)
    if hasattr(shutil, "_use_fd_functions"):
        shutil._use_fd_functions = False


def _redirect_open(overlay: Overlay) -> None:
    opened: Any = open_through(overlay)
    builtins.open = opened
    io.open = opened
    _redirect_pathlib(opened)
    for module, name in (("tarfile", "bltn_open"), ("bz2", "_builtin_open"), ("lzma", "_builtin_open")):
        loaded = sys.modules.get(module)
        if loaded is not None and hasattr(loaded, name):
            setattr(loaded, name, opened)


def _redirect_pathlib(opened: Any) -> None:
    """Python 3.10 keeps its own references to the functions of os."""
    import pathlib

    accessor: Any = getattr(pathlib, "_normal_accessor", None)
    if accessor is None:
        return
    for name in OS_FUNCTIONS:
        if hasattr(accessor, name):
            setattr(type(accessor), name, staticmethod(getattr(os, name)))
    type(accessor).open = staticmethod(opened)


def _refuse_children(event: str, _: Any) -> None:
    if event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
        raise PermissionError(errno.EPERM, "no child programs in a re-run of valgap: here nothing keeps them from writing")
