"""The file functions of os, and open, as a program in the sandbox gets them: through the overlay."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
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
            return original(overlay.found(file), mode, *args, **kwargs)
        if "x" in mode and overlay.exists(file):
            raise _already_there(file)
        file = overlay.followed(file)
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
            "lstat": self._reading("lstat", follow=False),
            "access": self._access,
            "readlink": self._reading("readlink", follow=False),
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
            **{name: self._changing(name, follow=name != "lchown") for name in CHANGING if hasattr(self._real, name)},
            **({"mkfifo": self._mkfifo} if hasattr(self._real, "mkfifo") else {}),
        }

    def _reading(self, name: str, follow: bool = True) -> Callable[..., Any]:
        original = getattr(self._real, name)

        def function(path: Any, *args: Any, dir_fd: int | None = None, follow_symlinks: bool = True, **kwargs: Any) -> Any:
            if not follow_symlinks:
                kwargs["follow_symlinks"] = False
            return original(self._seen(path, dir_fd, follow and follow_symlinks), *args, **kwargs)

        return function

    def _changing(self, name: str, follow: bool = True) -> Callable[..., Any]:
        original = getattr(self._real, name)

        def function(path: Any, *args: Any, dir_fd: int | None = None, follow_symlinks: bool = True, **kwargs: Any) -> Any:
            path = self._at(path, dir_fd)
            if not follow_symlinks:
                kwargs["follow_symlinks"] = False
            elif follow:
                path = self._overlay.followed(path)
            if not isinstance(path, int) and not self._overlay.exists(path):
                raise _not_there(path)
            return original(self._overlay.write(path, keep=True), *args, **kwargs)

        return function

    def _at(self, path: Any, dir_fd: int | None) -> Any:
        """The path from the working directory's or the root's side, where it was given from that of an open folder."""
        if dir_fd is None or isinstance(path, int) or os.path.isabs(path):
            return path
        for place in (f"/proc/self/fd/{dir_fd}", f"/dev/fd/{dir_fd}"):
            with contextlib.suppress(OSError):
                return os.path.join(self._overlay.original(self._real.readlink(place)), os.fsdecode(path))
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP), os.fsdecode(path))

    def _seen(self, path: Any, dir_fd: int | None = None, follow: bool = True) -> Any:
        path = self._at(path, dir_fd)
        return self._overlay.found(path) if follow else self._overlay.read(path)

    def _access(self, path: Any, mode: int, *, dir_fd: int | None = None, **kwargs: Any) -> bool:
        """As without a sandbox: what is read-only in it is written to through the overlay, where its owner and mode allow it."""
        path = self._at(path, dir_fd)
        seen = self._seen(path)
        if not mode & os.W_OK or self._overlay.covered(path) is None:
            return bool(self._real.access(seen, mode, **kwargs))
        return bool(self._real.access(seen, mode & ~os.W_OK, **kwargs)) and _writable(self._real.stat(seen))

    def _open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        path = self._at(path, dir_fd)
        if flags & getattr(os, "O_TMPFILE", 0) == getattr(os, "O_TMPFILE", -1):
            path = self._overlay.folder(path)
            return int(self._real.open(path, flags, mode))
        follow = not flags & getattr(os, "O_NOFOLLOW", 0)
        if flags & WRITE_FLAGS:
            return int(self._real.open(self._to_write(path, flags, follow), flags, mode))
        return int(self._real.open(self._seen(path, None, follow), flags, mode))

    def _to_write(self, path: Any, flags: int, follow: bool) -> Any:
        if flags & os.O_EXCL and self._overlay.exists(path):
            raise _already_there(path)
        path = self._overlay.followed(path) if follow else path
        if not flags & os.O_CREAT and not self._overlay.exists(path):
            raise _not_there(path)
        return self._overlay.write(path, keep=not (flags & os.O_TRUNC and flags & os.O_CREAT))

    def _listdir(self, path: Any = ".") -> list[Any]:
        path = self._overlay.followed("." if path is None else path)
        names = self._overlay.names(path)
        if names is None:
            return list(self._real.listdir(self._overlay.read(path)))
        return [os.fsencode(n) for n in names] if isinstance(path, bytes) else names

    def _scandir(self, path: Any = ".") -> Any:
        path = "." if path is None else path
        followed = self._overlay.followed(path)
        names = self._overlay.names(followed)
        if names is None:
            return self._real.scandir(self._overlay.read(followed))
        return _Entries([_Entry(os.path.join(os.fsdecode(path), n), n) for n in names])

    def _mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        path = self._at(path, dir_fd)
        absolute = self._overlay.covered(path)
        if absolute is not None and self._overlay.visible(absolute):
            raise _already_there(path)
        gone = absolute is not None and self._overlay.marked(absolute)
        self._real.mkdir(self._overlay.write(path), mode)
        if gone and absolute is not None:
            self._overlay.mark(absolute)  # a new folder in the place of a deleted one: what was in it stays hidden

    def _mkfifo(self, path: Any, mode: int = 0o666, *, dir_fd: int | None = None) -> None:
        path = self._at(path, dir_fd)
        if self._overlay.exists(path):
            raise _already_there(path)
        self._real.mkfifo(self._overlay.write(path), mode)

    def _rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        path = self._at(path, dir_fd)
        absolute = self._overlay.covered(path)
        if absolute is None:
            self._real.rmdir(path)
            return
        if self._listdir(path):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), os.fsdecode(path))
        self._overlay.forget(absolute)

    def _unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        path = self._at(path, dir_fd)
        absolute = self._overlay.covered(path)
        if absolute is None:
            self._real.unlink(path)
            return
        if not self._overlay.visible(absolute):
            raise _not_there(path)
        self._overlay.forget(absolute)

    def _rename(self, source: Any, target: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
        source, target = self._at(source, src_dir_fd), self._at(target, dst_dir_fd)
        absolute = self._overlay.absolute(source)
        if absolute is None or not (self._overlay.is_free(absolute) or self._overlay.visible(absolute)):
            raise _not_there(source)
        moved, to = self._overlay.write(source, keep=True), self._overlay.write(target)
        try:
            self._real.replace(moved, to)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._over(moved, to)  # folders of the sandbox are disks of their own, and need not be outside
        if not self._overlay.is_free(absolute):
            self._overlay.forget(absolute)

    def _over(self, moved: str, to: str) -> None:
        """Move to another disk."""
        if stat.S_ISDIR(self._real.lstat(moved).st_mode):
            shutil.copytree(moved, to, symlinks=True)
            shutil.rmtree(moved)
            return
        shutil.copy2(moved, f"{to}.valgap", follow_symlinks=False)
        self._real.replace(f"{to}.valgap", to)
        self._real.unlink(moved)

    def _symlink(self, source: Any, target: Any, target_is_directory: bool = False, *, dir_fd: int | None = None) -> None:
        target = self._at(target, dir_fd)
        absolute = self._overlay.covered(target)
        if absolute is not None and self._overlay.visible(absolute):
            raise _already_there(target)
        self._real.symlink(source, self._overlay.write(target), target_is_directory)
        self._overlay.has_link()

    def _link(self, source: Any, target: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None, **_: Any) -> None:
        found, target = self._seen(source, src_dir_fd), self._at(target, dst_dir_fd)
        if self._overlay.exists(target):
            raise _already_there(target)
        with self._overlay.open_real(found, "rb") as old, self._overlay.open_real(self._overlay.write(target), "xb") as new:
            shutil.copyfileobj(old, new)


def _writable(status: os.stat_result) -> bool:
    """Whether this process's user may write to what has this owner and mode."""
    if not hasattr(os, "geteuid") or os.geteuid() == 0:
        return True
    if status.st_uid == os.geteuid():
        return bool(status.st_mode & stat.S_IWUSR)
    if status.st_gid in (os.getegid(), *os.getgroups()):
        return bool(status.st_mode & stat.S_IWGRP)
    return bool(status.st_mode & stat.S_IWOTH)


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
