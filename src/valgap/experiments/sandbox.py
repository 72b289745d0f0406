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
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from valgap.experiments.landlock import restrict_writes

PASS = ("/dev", "/proc", "/sys")
WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
GONE = ".valgap-deleted."
# Experiment loggers and hubs stay away from the network and write, if at all, into the scratch folder.
OFFLINE = {
    "WANDB_MODE": "disabled",
    "NEPTUNE_MODE": "offline",
    "CLEARML_OFFLINE_MODE": "1",
    "COMET_OFFLINE_MODE": "1",
    "COMET_MODE": "OFFLINE",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "DISABLE_MLFLOW_INTEGRATION": "TRUE",
    "PYTHONDONTWRITEBYTECODE": "1",
}


def environment(scratch: Path, temporary: Path) -> dict[str, str]:
    """Variables for a sandboxed program: offline, and a folder of its own for temporary files.

    ``temporary`` should have a short path: the sockets of loader workers lie there, and theirs must stay below 108 bytes.
    """
    return {**OFFLINE, "TMPDIR": str(temporary), "MLFLOW_TRACKING_URI": (scratch / "mlruns").as_uri()}


class Sandbox:
    """Redirects this process. ``enter`` once; there is no way out but the end of the process."""

    def __init__(self, scratch: Path, allowed: tuple[Path, ...] = ()) -> None:
        self.scratch = os.path.realpath(scratch)
        self.world = os.path.join(self.scratch, "world")
        self.free = (self.scratch, *(os.path.realpath(a) for a in allowed), *PASS)
        self._open = io.open
        self._os: dict[str, Callable[..., Any]] = {}
        self._resolving = threading.local()

    def enter(self) -> bool:
        """Begin; returns whether the kernel guards as well."""
        os.makedirs(self.world, exist_ok=True)
        self._redirect_os()
        self._redirect_open()
        self._redirect_writers()
        _refuse_network()
        guarded = restrict_writes([p for p in self.free if p not in ("/proc", "/sys")])
        if not guarded:
            sys.addaudithook(_refuse_children)
        return guarded

    # -- where a path leads -------------------------------------------------------------------

    def _is_free(self, path: str) -> bool:
        return any(path == f or path.startswith(f + os.sep) for f in self.free)

    def _absolute(self, path: Any) -> str | None:
        """The path, its folder resolved; None for what is no path (a file descriptor)."""
        if isinstance(path, int) or getattr(self._resolving, "on", False):
            return None
        folder, name = os.path.split(os.path.join(self._os["getcwd"](), os.fsdecode(path)))
        self._resolving.on = True  # realpath asks os.lstat, which is ours
        try:
            folder = os.path.realpath(folder)
        finally:
            self._resolving.on = False
        return os.path.normpath(os.path.join(folder, name)) if name else folder

    def _copy(self, path: str) -> str:
        return self.world + path

    def _mark(self, path: str) -> str:
        folder, name = os.path.split(self._copy(path))
        return os.path.join(folder, GONE + name)

    def _real(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return self._os[name](*args, **kwargs)

    def _there(self, path: str) -> bool:
        try:
            self._real("lstat", path)
        except OSError:
            return False
        return True

    def _gone(self, path: str) -> bool:
        """Whether the program deleted this original, or a folder above it, and made nothing new there."""
        if self._there(self._copy(path)):
            return False
        while len(path) > 1:
            if self._there(self._mark(path)):
                return True
            path = os.path.dirname(path)
        return False

    def read(self, path: Any) -> Any:
        """Where a read of ``path`` leads."""
        absolute = self._absolute(path)
        if absolute is None or self._is_free(absolute):
            return path
        copy = self._copy(absolute)
        if self._there(copy) or self._gone(absolute):
            return copy
        return path

    def write(self, path: Any, keep: bool = False) -> Any:
        """Where a write to ``path`` leads; with ``keep`` the original's content is copied there first."""
        absolute = self._absolute(path)
        if absolute is None or self._is_free(absolute):
            return path
        copy = self._copy(absolute)
        folder = os.path.dirname(absolute)
        if not self._visible(folder):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(path))
        self._mkdirs(os.path.dirname(copy))
        if keep and not self._there(copy) and not self._gone(absolute) and self._there(absolute):
            self._bring(absolute, copy)
        self._unmark(absolute)
        return copy

    def _visible(self, path: str) -> bool:
        return self._there(self._copy(path)) or (not self._gone(path) and self._there(path))

    def _mkdirs(self, folder: str) -> None:
        if self._there(folder):
            return
        self._mkdirs(os.path.dirname(folder))
        try:
            self._real("mkdir", folder)
        except FileExistsError:
            pass

    def _bring(self, original: str, copy: str) -> None:
        """Copy an original file, folder or link into the world."""
        import stat

        mode = self._real("lstat", original).st_mode
        if stat.S_ISLNK(mode):
            self._real("symlink", self._real("readlink", original), copy)
        elif stat.S_ISDIR(mode):
            self._mkdirs(copy)
            for name in self._real("listdir", original):
                if not self._there(os.path.join(copy, name)) and not self._there(os.path.join(copy, GONE + name)):
                    self._bring(os.path.join(original, name), os.path.join(copy, name))
        else:
            with self._open(original, "rb") as source, self._open(copy, "wb") as target:
                shutil.copyfileobj(source, target)

    def _unmark(self, absolute: str) -> None:
        mark = self._mark(absolute)
        if self._there(mark):
            self._real("unlink", mark)

    def _set_mark(self, absolute: str) -> None:
        self._mkdirs(os.path.dirname(self._copy(absolute)))
        self._open(self._mark(absolute), "wb").close()

    # -- os -----------------------------------------------------------------------------------

    def _redirect_os(self) -> None:
        names = [
            "open",
            "stat",
            "lstat",
            "listdir",
            "scandir",
            "access",
            "readlink",
            "mkdir",
            "rmdir",
            "unlink",
            "remove",
            "rename",
            "replace",
            "symlink",
            "link",
            "truncate",
            "chmod",
            "utime",
            "getcwd",
            "chdir",
        ]
        self._os = {n: getattr(os, n) for n in names}
        here = {
            "open": self._os_open,
            "stat": self._reading("stat"),
            "lstat": self._reading("lstat"),
            "access": self._access,
            "readlink": self._reading("readlink"),
            "listdir": self._listdir,
            "scandir": self._scandir,
            "mkdir": self._mkdir,
            "rmdir": self._rmdir,
            "unlink": self._unlink,
            "remove": self._unlink,
            "rename": self._rename,
            "replace": self._rename,
            "symlink": self._symlink,
            "link": self._link,
            "truncate": self._changing("truncate"),
            "chmod": self._changing("chmod"),
            "utime": self._changing("utime"),
            "chdir": self._reading("chdir"),
        }
        for name, function in here.items():
            setattr(os, name, function)
        # These take the safe way through descriptors only where os says so; they must ask for paths now.
        os.supports_dir_fd.clear()
        os.supports_fd.discard(self._os["scandir"])
        if hasattr(shutil, "_use_fd_functions"):
            shutil._use_fd_functions = False

    def _reading(self, name: str) -> Callable[..., Any]:
        original = self._os[name]

        def function(path: Any, *args: Any, **kwargs: Any) -> Any:
            if kwargs.get("dir_fd") is not None:
                return original(path, *args, **kwargs)
            return original(self.read(path), *args, **kwargs)

        return function

    def _changing(self, name: str) -> Callable[..., Any]:
        original = self._os[name]

        def function(path: Any, *args: Any, **kwargs: Any) -> Any:
            return original(self.write(path, keep=True), *args, **kwargs)

        return function

    def _access(self, path: Any, mode: int, **kwargs: Any) -> bool:
        target = self.read(path)
        return bool(self._os["access"](target, mode, **kwargs))

    def _os_open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if dir_fd is not None or isinstance(path, int):
            return int(self._os["open"](path, flags, mode, dir_fd=dir_fd))
        if flags & WRITE_FLAGS:
            return int(self._os["open"](self._to_write(path, flags), flags, mode))
        return int(self._os["open"](self.read(path), flags, mode))

    def _to_write(self, path: Any, flags: int) -> Any:
        if flags & os.O_EXCL and self._visible(self._absolute(path) or ""):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fsdecode(path))
        if not flags & os.O_CREAT and not self._visible(self._absolute(path) or ""):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(path))
        return self.write(path, keep=not flags & os.O_TRUNC)

    def _names(self, path: Any) -> tuple[str, list[str]] | None:
        absolute = self._absolute(path)
        if absolute is None or self._is_free(absolute) or not self._there(self._copy(absolute)):
            return None
        copy = self._copy(absolute)
        own = self._os["listdir"](copy)
        marks = {n.removeprefix(GONE) for n in own if n.startswith(GONE)}
        seen = [n for n in own if not n.startswith(GONE)]
        if self._there(absolute) and not self._there(self._mark(absolute)):
            seen += [n for n in self._os["listdir"](absolute) if n not in marks and n not in seen]
        return absolute, seen

    def _listdir(self, path: Any = ".") -> list[Any]:
        found = self._names(path)
        if found is None:
            return list(self._os["listdir"](self.read(path)))
        return [os.fsencode(n) for n in found[1]] if isinstance(path, bytes) else found[1]

    def _scandir(self, path: Any = ".") -> Any:
        found = self._names(path)
        if found is None:
            return self._os["scandir"](self.read(path))
        return _Entries([_Entry(os.path.join(os.fsdecode(path), n), n) for n in found[1]])

    def _mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        absolute = self._absolute(path)
        if absolute is not None and not self._is_free(absolute) and self._visible(absolute):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fsdecode(path))
        gone = absolute is not None and not self._is_free(absolute) and self._there(self._mark(absolute))
        self._os["mkdir"](self.write(path), mode)
        if gone and absolute is not None:
            self._set_mark(absolute)  # a new folder in the place of a deleted one: what was in it stays hidden

    def _rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        absolute = self._absolute(path)
        if absolute is None or self._is_free(absolute):
            self._os["rmdir"](path)
            return
        if self._listdir(path):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), os.fsdecode(path))
        self._forget(absolute)

    def _unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        absolute = self._absolute(path)
        if absolute is None or self._is_free(absolute):
            self._os["unlink"](path)
            return
        if not self._visible(absolute):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(path))
        self._forget(absolute)

    def _forget(self, absolute: str) -> None:
        copy = self._copy(absolute)
        if self._there(copy):
            self._erase(copy)
        if self._there(absolute):
            self._set_mark(absolute)

    def _erase(self, copy: str) -> None:
        if os.path.isdir(copy) and not os.path.islink(copy):
            for name in self._os["listdir"](copy):
                self._erase(os.path.join(copy, name))
            self._os["rmdir"](copy)
        else:
            self._os["unlink"](copy)

    def _rename(self, source: Any, target: Any, **_: Any) -> None:
        absolute = self._absolute(source)
        if absolute is None or not (self._is_free(absolute) or self._visible(absolute)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(source))
        moved = self.write(source, keep=True)
        self._os["replace"](moved, self.write(target))
        if not self._is_free(absolute):
            self._forget(absolute)

    def _symlink(self, source: Any, target: Any, target_is_directory: bool = False, **_: Any) -> None:
        absolute = self._absolute(target)
        if absolute is not None and not self._is_free(absolute) and self._visible(absolute):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fsdecode(target))
        self._os["symlink"](source, self.write(target), target_is_directory)

    def _link(self, source: Any, target: Any, **_: Any) -> None:
        found, made = self.read(source), self.write(target)
        with self._open(found, "rb") as old, self._open(made, "xb") as new:
            shutil.copyfileobj(old, new)

    # -- open and what opens files below Python -------------------------------------------------

    def _redirect_open(self) -> None:
        original = self._open

        def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if isinstance(file, int):
                return original(file, mode, *args, **kwargs)
            if not set(mode) & set("wax+"):
                return original(self.read(file), mode, *args, **kwargs)
            if "x" in mode and self._visible(self._absolute(file) or ""):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fsdecode(file))
            if mode[0] == "r" and not self._visible(self._absolute(file) or ""):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(file))
            return original(self.write(file, keep="w" not in mode and "x" not in mode), mode, *args, **kwargs)

        builtins.open = opened
        io.open = opened
        self._redirect_pathlib(opened)

    def _redirect_pathlib(self, opened: Any) -> None:
        """Python 3.10 keeps its own references to the functions of os."""
        import pathlib

        accessor: Any = getattr(pathlib, "_normal_accessor", None)
        if accessor is None:
            return
        for name in self._os:
            if hasattr(accessor, name):
                setattr(type(accessor), name, staticmethod(getattr(os, name)))
        type(accessor).open = staticmethod(opened)

    def _redirect_writers(self) -> None:
        """Libraries that open a path in C++ or Rust get one that leads into the world."""
        for module, names in (("torch.serialization", ("save", "load")), ("safetensors.torch", ("save_file", "load_file"))):
            _after_import(module, functools.partial(self._wrap_paths, names))
        for module, name in (("tarfile", "bltn_open"), ("bz2", "_builtin_open"), ("lzma", "_builtin_open")):
            loaded = sys.modules.get(module)
            if loaded is not None and hasattr(loaded, name):
                setattr(loaded, name, builtins.open)

    def _wrap_paths(self, names: tuple[str, ...], module: Any) -> None:
        for name in names:
            original = getattr(module, name)
            place = 1 if name in ("save", "save_file") else 0

            def wrapped(*args: Any, _original: Any = original, _place: int = place, **kwargs: Any) -> Any:
                lead = self.write if _place else self.read
                given = list(args)
                if len(given) > _place and isinstance(given[_place], (str, os.PathLike)):
                    given[_place] = lead(given[_place])
                for key in ("f", "filename"):
                    if isinstance(kwargs.get(key), (str, os.PathLike)):
                        kwargs[key] = lead(kwargs[key])
                return _original(*given, **kwargs)

            setattr(module, name, wrapped)
            parent = sys.modules.get(module.__name__.rpartition(".")[0])
            if parent is not None and getattr(parent, name, None) is original:
                setattr(parent, name, wrapped)


class _Entry:
    """A ``DirEntry`` of a folder that is seen through the sandbox."""

    def __init__(self, path: str, name: str) -> None:
        self.path, self.name = path, name

    def __fspath__(self) -> str:
        return self.path

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return os.path.isdir(self.path) and (follow_symlinks or not self.is_symlink())

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return os.path.isfile(self.path) and (follow_symlinks or not self.is_symlink())

    def is_symlink(self) -> bool:
        return os.path.islink(self.path)

    def is_junction(self) -> bool:
        return False

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        return os.stat(self.path) if follow_symlinks else os.lstat(self.path)

    def inode(self) -> int:
        return self.stat(follow_symlinks=False).st_ino


class _Entries:
    def __init__(self, entries: list[_Entry]) -> None:
        self._entries = iter(entries)

    def __iter__(self) -> Iterator[_Entry]:
        return self._entries

    def __next__(self) -> _Entry:
        return next(self._entries)

    def __enter__(self) -> _Entries:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is held."""


def _after_import(name: str, call: Callable[[Any], None]) -> None:
    """Call with the module now, or once it has been imported."""
    if name in sys.modules:
        call(sys.modules[name])
        return
    from valgap.seams.host import AfterImport

    sys.meta_path.insert(0, AfterImport({name: lambda: call(sys.modules[name])}))


def _refuse_network() -> None:
    original = socket.socket.connect

    def connect(own: socket.socket, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else "local"
        if own.family != getattr(socket, "AF_UNIX", None) and host not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(errno.ENETUNREACH, "no network in a re-run of valgap")
        original(own, address)

    socket.socket.connect = connect  # type: ignore[method-assign,assignment]


def _refuse_children(event: str, _: Any) -> None:
    if event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
        raise PermissionError(errno.EPERM, "no child programs in a re-run of valgap: here nothing keeps them from writing")
