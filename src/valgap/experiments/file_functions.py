"""The file functions of os, and open, as a program in the sandbox gets them: through the overlay."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

from valgap.experiments.overlay import Overlay

WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

# What only some systems have, and what a copy of a file with its attributes, or a lock beside it, asks for.
READING = ("statvfs", "pathconf", "getxattr", "listxattr")
CHANGING = ("setxattr", "removexattr", "chown", "lchown")


def open_through(overlay: Overlay) -> Callable[..., Any]:
    """What stands in the place of open."""
    original: Callable[..., Any] = overlay.open_real

    def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if isinstance(file, int):
            return original(file, mode, *args, **kwargs)
        if not set(mode) & set("wax+"):
            return original(overlay.read(file), mode, *args, **kwargs)
        if "x" in mode and overlay.exists(file):
            raise _already_there(file)
        if mode[0] == "r" and not overlay.exists(file):
            raise _not_there(file)
        return original(overlay.write(file, keep="w" not in mode and "x" not in mode), mode, *args, **kwargs)

    return opened


class OsFunctions:
    """What stands in the place of os's functions on paths."""

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay
        self._real = overlay.real

    def by_name(self) -> dict[str, Callable[..., Any]]:
        """Every function under the name that it takes in os."""
        return {
            "open": self._open,
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
            **{name: self._reading(name) for name in READING if hasattr(self._real, name)},
            **{name: self._changing(name) for name in CHANGING if hasattr(self._real, name)},
            **({"mkfifo": self._mkfifo} if hasattr(self._real, "mkfifo") else {}),
        }

    def _reading(self, name: str) -> Callable[..., Any]:
        original = getattr(self._real, name)

        def function(path: Any, *args: Any, **kwargs: Any) -> Any:
            if kwargs.get("dir_fd") is not None:
                return original(path, *args, **kwargs)
            return original(self._overlay.read(path), *args, **kwargs)

        return function

    def _changing(self, name: str) -> Callable[..., Any]:
        original = getattr(self._real, name)

        def function(path: Any, *args: Any, **kwargs: Any) -> Any:
            return original(self._overlay.write(path, keep=True), *args, **kwargs)

        return function

    def _access(self, path: Any, mode: int, **kwargs: Any) -> bool:
        return bool(self._real.access(self._overlay.read(path), mode, **kwargs))

    def _open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if dir_fd is not None or isinstance(path, int):
            return int(self._real.open(path, flags, mode, dir_fd=dir_fd))
        if flags & WRITE_FLAGS:
            return int(self._real.open(self._to_write(path, flags), flags, mode))
        return int(self._real.open(self._overlay.read(path), flags, mode))

    def _to_write(self, path: Any, flags: int) -> Any:
        if flags & os.O_EXCL and self._overlay.exists(path):
            raise _already_there(path)
        if not flags & os.O_CREAT and not self._overlay.exists(path):
            raise _not_there(path)
        return self._overlay.write(path, keep=not flags & os.O_TRUNC)

    def _listdir(self, path: Any = ".") -> list[Any]:
        names = self._overlay.names(path)
        if names is None:
            return list(self._real.listdir(self._overlay.read(path)))
        return [os.fsencode(n) for n in names] if isinstance(path, bytes) else names

    def _scandir(self, path: Any = ".") -> Any:
        names = self._overlay.names(path)
        if names is None:
            return self._real.scandir(self._overlay.read(path))
        return _Entries([_Entry(os.path.join(os.fsdecode(path), n), n) for n in names])

    def _mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        absolute = self._overlay.covered(path)
        if absolute is not None and self._overlay.visible(absolute):
            raise _already_there(path)
        gone = absolute is not None and self._overlay.marked(absolute)
        self._real.mkdir(self._overlay.write(path), mode)
        if gone and absolute is not None:
            self._overlay.mark(absolute)  # a new folder in the place of a deleted one: what was in it stays hidden

    def _mkfifo(self, path: Any, mode: int = 0o666, *, dir_fd: int | None = None) -> None:
        if self._overlay.exists(path):
            raise _already_there(path)
        self._real.mkfifo(self._overlay.write(path), mode)

    def _rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        absolute = self._overlay.covered(path)
        if absolute is None:
            self._real.rmdir(path)
            return
        if self._listdir(path):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), os.fsdecode(path))
        self._overlay.forget(absolute)

    def _unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        absolute = self._overlay.covered(path)
        if absolute is None:
            self._real.unlink(path)
            return
        if not self._overlay.visible(absolute):
            raise _not_there(path)
        self._overlay.forget(absolute)

    def _rename(self, source: Any, target: Any, **_: Any) -> None:
        absolute = self._overlay.absolute(source)
        if absolute is None or not (self._overlay.is_free(absolute) or self._overlay.visible(absolute)):
            raise _not_there(source)
        moved = self._overlay.write(source, keep=True)
        self._real.replace(moved, self._overlay.write(target))
        if not self._overlay.is_free(absolute):
            self._overlay.forget(absolute)

    def _symlink(self, source: Any, target: Any, target_is_directory: bool = False, **_: Any) -> None:
        absolute = self._overlay.covered(target)
        if absolute is not None and self._overlay.visible(absolute):
            raise _already_there(target)
        self._real.symlink(source, self._overlay.write(target), target_is_directory)

    def _link(self, source: Any, target: Any, **_: Any) -> None:
        found, made = self._overlay.read(source), self._overlay.write(target)
        with self._overlay.open_real(found, "rb") as old, self._overlay.open_real(made, "xb") as new:
            shutil.copyfileobj(old, new)


class _Entry:
    """A ``DirEntry`` of a folder that is seen through the overlay."""

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


def _already_there(path: Any) -> FileExistsError:
    return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fsdecode(path))


def _not_there(path: Any) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(path))
