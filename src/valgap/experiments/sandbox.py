"""Keeps a re-run from changing the user's world: what it writes, renames or deletes happens in a scratch folder.

Python's file functions are redirected: a write goes to a copy below ``scratch/world``, a deletion leaves a mark there,
and reads see the copy first, the mark next, the original last. Where the kernel can (Landlock, Linux 5.13), it also
forbids every write outside the scratch folder, for code that is not Python and for child programs too; what cannot be
redirected then fails instead of doing harm. Elsewhere child programs are refused.
"""

from __future__ import annotations

import builtins
import errno
import functools
import io
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from valgap.experiments.file_functions import OsFunctions, open_through
from valgap.experiments.landlock import restrict_writes
from valgap.experiments.offline import refuse_network
from valgap.experiments.overlay import OS_FUNCTIONS, Overlay

PASS = ("/dev", "/proc", "/sys")


class Sandbox:
    """Redirects this process. ``enter`` once; there is no way out but the end of the process."""

    def __init__(self, scratch: Path, allowed: tuple[Path, ...] = ()) -> None:
        own = os.path.realpath(scratch)
        self.overlay = Overlay(os.path.join(own, "world"), (own, *(os.path.realpath(a) for a in allowed), *PASS))

    def enter(self) -> bool:
        """Begin; returns whether the kernel guards as well."""
        os.makedirs(self.overlay.world, exist_ok=True)
        _redirect_os(self.overlay)
        _redirect_open(self.overlay)
        _redirect_libraries(self.overlay)
        refuse_network()
        guarded = self._restrict()
        if not guarded:
            sys.addaudithook(_refuse_children)
        return guarded

    def move(self, scratch: Path, allowed: tuple[Path, ...]) -> bool:
        """Go on in another scratch folder, as a fork of the process that entered: what was written so far is copied there.

        Nothing that was allowed before and is not now can be written any more: neither the other world nor its temporary files.
        Returns whether the kernel guards as well.
        """
        own = os.path.realpath(scratch)
        world = os.path.join(own, "world")
        if os.path.isdir(self.overlay.world):
            shutil.copytree(self.overlay.world, world, symlinks=True, dirs_exist_ok=True)
        os.makedirs(world, exist_ok=True)
        free = (own, *(os.path.realpath(a) for a in allowed), *PASS)
        self.overlay.world, self.overlay.free = world, free
        return self._restrict()

    def _restrict(self) -> bool:
        return restrict_writes([p for p in self.overlay.free if p not in ("/proc", "/sys")])


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


def _redirect_libraries(overlay: Overlay) -> None:
    """Libraries that open a path in C++ or Rust get one that leads into the world."""
    for module, names in (
        ("torch.serialization", ("save", "load")),
        ("safetensors.torch", ("save_file", "load_file")),
        ("pyarrow", ("memory_map",)),
    ):
        _after_import(module, functools.partial(_wrap_paths, overlay, names))
    for module, name in (("tarfile", "bltn_open"), ("bz2", "_builtin_open"), ("lzma", "_builtin_open")):
        loaded = sys.modules.get(module)
        if loaded is not None and hasattr(loaded, name):
            setattr(loaded, name, builtins.open)


def _wrap_paths(overlay: Overlay, names: tuple[str, ...], module: Any) -> None:
    for name in names:
        original = getattr(module, name)
        place = 1 if name in ("save", "save_file") else 0

        def wrapped(*args: Any, _original: Any = original, _place: int = place, **kwargs: Any) -> Any:
            lead = overlay.write if _place else overlay.read
            given = list(args)
            if len(given) > _place and isinstance(given[_place], (str, os.PathLike)):
                given[_place] = lead(given[_place])
            for key in ("f", "filename", "path"):
                if isinstance(kwargs.get(key), (str, os.PathLike)):
                    kwargs[key] = lead(kwargs[key])
            return _original(*given, **kwargs)

        setattr(module, name, wrapped)
        parent = sys.modules.get(module.__name__.rpartition(".")[0])
        if parent is not None and getattr(parent, name, None) is original:
            setattr(parent, name, wrapped)


def _after_import(name: str, call: Callable[[Any], None]) -> None:
    """Call with the module now, or once it has been imported."""
    if name in sys.modules:
        call(sys.modules[name])
        return
    from valgap.seams.hosting.after_import import AfterImport

    sys.meta_path.insert(0, AfterImport({name: lambda: call(sys.modules[name])}))


def _refuse_children(event: str, _: Any) -> None:
    if event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
        raise PermissionError(errno.EPERM, "no child programs in a re-run of valgap: here nothing keeps them from writing")
