"""The overlay: what a program wrote, renamed or deleted, as copies and marks in a scratch folder, over the originals."""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import threading
from types import SimpleNamespace
from typing import Any

GONE = ".valgap-deleted."
DESCRIPTORS = ("/proc/", "/dev/fd/")  # folders in which open files stand by their number
STANDARD_STREAMS = (0, 1, 2)
MOST_LINKS = 40  # on the way to a file, as in the kernel
# What the overlay needs of os, and what file_functions.py replaces there.
OS_FUNCTIONS = (
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
    # Not every system has these.
    "statvfs",
    "pathconf",
    "getxattr",
    "listxattr",
    "setxattr",
    "removexattr",
    "chown",
    "lchown",
    "mkfifo",
)


class Overlay:
    """Where paths lead: to the copy below ``world`` first, the mark of a deletion next, the original last.

    Below the folders ``free`` every path leads to itself, but below those of ``kept`` in them. ``real`` holds the functions of
    os, and ``open_real`` is open, as they were when the overlay was made: they may be replaced by others that ask it.
    """

    def __init__(self, world: str, free: tuple[str, ...], kept: tuple[str, ...] = ()) -> None:
        self.world = world
        self.free, self.kept = free, kept
        self.real: Any = SimpleNamespace(**{name: getattr(os, name) for name in OS_FUNCTIONS if hasattr(os, name)})
        self.open_real = io.open
        self._resolving = threading.local()

    # -- what is there ------------------------------------------------------------------------

    def is_free(self, path: str) -> bool:
        """Whether an absolute path leads to itself: the deepest folder that holds it decides."""
        free = max((len(f) for f in self.free if _below(path, f)), default=0)
        return free > 0 and not any(len(k) > free and _below(path, k) for k in self.kept)

    def absolute(self, path: Any) -> str | None:
        """The path, its folder resolved; None for what is no path (a file descriptor)."""
        if isinstance(path, int) or getattr(self._resolving, "on", False):
            return None
        folder, name = os.path.split(os.path.join(self.real.getcwd(), os.fsdecode(path)))
        self._resolving.on = True  # realpath asks os.lstat, which may ask us
        try:
            folder = self._through_links(folder) if self.links_known() else os.path.realpath(folder)
        finally:
            self._resolving.on = False
        return os.path.normpath(os.path.join(folder, name)) if name else folder

    def followed(self, path: Any) -> Any:
        """Where a path leads when the links at its end are followed as the program sees them; itself where it is none."""
        seen = self._opened(path)
        return seen if self._untouched() else self._end(seen)[0]

    def found(self, path: Any) -> Any:
        """Where a read leads, links at the end of ``path`` followed: as ``read`` of what ``followed`` says, in one go."""
        seen = self._opened(path)
        if self._untouched():
            return seen
        end, absolute = self._end(seen)
        return end if absolute is None else self._read(end, absolute)

    def _end(self, path: Any) -> tuple[Any, str | None]:
        """The end of the links that begin at a path, and what ``covered`` says of it."""
        seen = path
        for _ in range(MOST_LINKS):
            absolute = self.covered(seen)
            target = self._link(absolute) if absolute is not None else None
            if target is None or absolute is None:
                return seen, absolute
            seen = os.path.join(os.path.dirname(absolute), target)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fsdecode(path))

    def _opened(self, path: Any) -> Any:
        """The path of a file that is given by the number under which it is open; itself where it is given otherwise."""
        given = os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else ""
        folder, number = os.path.split(given)
        if (
            not given.startswith(DESCRIPTORS)
            or not folder.endswith("/fd")
            or not number.isdigit()
            or int(number) in STANDARD_STREAMS
        ):
            return path
        try:
            found = str(self.real.readlink(f"/proc/self/fd/{number}" if given.startswith("/dev") else given))
        except OSError:
            return path
        return found if found.startswith(os.sep) and self._there(found) else path

    def original(self, path: str) -> str:
        """The path as the program calls it: where it leads into the world, what it is a copy of."""
        return path[len(self.world) :] or os.sep if _below(path, self.world) else path

    def has_link(self) -> None:
        """The world holds a link now: from here on the folders of every path are looked up in it too."""
        self.open_real(self._linked, "wb").close()

    def links_known(self) -> bool:
        """Whether the world holds a link."""
        return self._there(self._linked)

    @property
    def _linked(self) -> str:
        return os.path.join(os.path.dirname(self.world), "linked")

    def _link(self, absolute: str) -> str | None:
        """What the link at an absolute path says; None where the program sees none there."""
        copy = self._copy(absolute)
        place = copy if self._there(copy) else absolute
        try:
            found = str(self.real.readlink(place))
        except OSError:
            return None
        return None if place == absolute and self._gone(absolute) else found

    def _through_links(self, folder: str) -> str:
        """A folder whose links are followed as the program sees them, those that it made among them."""
        done, rest, links = os.sep, [*reversed(folder.split(os.sep))], 0
        while rest:
            name = rest.pop()
            if name in ("", os.curdir):
                continue
            here = os.path.dirname(done) if name == os.pardir else os.path.join(done, name)
            target = None if name == os.pardir or links > MOST_LINKS else self._link(here)
            if target is None:
                done = here
                continue
            links += 1
            done = os.sep if os.path.isabs(target) else done
            rest += reversed(target.split(os.sep))
        return done

    def covered(self, path: Any) -> str | None:
        """The absolute path where the overlay covers it; None for a free one, and for a file descriptor."""
        absolute = self.absolute(path)
        return None if absolute is None or self.is_free(absolute) else absolute

    def exists(self, path: Any) -> bool:
        """Whether the program sees something at ``path``."""
        return self.visible(self.absolute(path) or "")

    def visible(self, absolute: str) -> bool:
        """Whether the program sees something at an absolute path."""
        return self._there(self._copy(absolute)) or (not self._gone(absolute) and self._there(absolute))

    def marked(self, absolute: str) -> bool:
        """Whether the program deleted what was at this very path."""
        return self._there(self._mark(absolute))

    def names(self, path: Any) -> list[str] | None:
        """What the program sees in a folder that has a copy; None for any other, which is read where `read` leads."""
        absolute = None if self._untouched() else self.covered(path)
        if absolute is None or not self._there(self._copy(absolute)):
            return None
        own = self.real.listdir(self._copy(absolute))
        marks = {n.removeprefix(GONE) for n in own if n.startswith(GONE)}
        seen = [n for n in own if not n.startswith(GONE)]
        if self._there(absolute) and not self.marked(absolute):
            seen += [n for n in self.real.listdir(absolute) if n not in marks and n not in seen]
        return seen

    def _untouched(self) -> bool:
        """Whether nothing was written or deleted yet, by any process: all that a program imports and reads until then."""
        try:
            return not self.real.listdir(self.world)
        except OSError:
            return False

    def _near(self, absolute: str) -> bool:
        """Whether the world holds a copy of this path or the mark of a deletion on the way to it.

        Marks and copies lie in copies of their folders: where the way to them ends, there is none further on.
        """
        copy = self.world
        for name in filter(None, absolute.split(os.sep)):
            if self._there(os.path.join(copy, GONE + name)):
                return True
            copy = os.path.join(copy, name)
            if not self._there(copy):
                return False
        return True

    def _copy(self, path: str) -> str:
        return self.world + path

    def _mark(self, path: str) -> str:
        folder, name = os.path.split(self._copy(path))
        return os.path.join(folder, GONE + name)

    def _there(self, path: str) -> bool:
        try:
            self.real.lstat(path)
        except OSError:
            return False
        return True

    def _gone(self, path: str) -> bool:
        """Whether the program deleted this original, or a folder above it, and made nothing new there."""
        if self._there(self._copy(path)):
            return False
        while len(path) > 1:
            if self.marked(path):
                return True
            path = os.path.dirname(path)
        return False

    # -- where a path leads -------------------------------------------------------------------

    def read(self, path: Any) -> Any:
        """Where a read of ``path`` leads."""
        if self._untouched():
            return path
        absolute = self.covered(path)
        return path if absolute is None else self._read(path, absolute)

    def _read(self, path: Any, absolute: str) -> Any:
        if not self._near(absolute):
            return path
        copy = self._copy(absolute)
        if self._there(copy) or self._gone(absolute):
            return copy
        return path

    def write(self, path: Any, keep: bool = False) -> Any:
        """Where a write to ``path`` leads; with ``keep`` the original's content is copied there first."""
        absolute = self.covered(path)
        if absolute is None:
            return path
        copy = self._copy(absolute)
        if not self.visible(os.path.dirname(absolute)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(path))
        self._mkdirs(os.path.dirname(copy))
        if keep and not self._there(copy) and not self._gone(absolute) and self._there(absolute):
            self._bring(absolute, copy)
        if self.marked(absolute):
            self.real.unlink(self._mark(absolute))
        return copy

    def folder(self, path: Any) -> Any:
        """Where files without a name are made that are meant for a folder."""
        absolute = self.covered(path)
        if absolute is None:
            return path
        self._mkdirs(self._copy(absolute))
        return self._copy(absolute)

    def _mkdirs(self, folder: str) -> None:
        if self._there(folder):
            return
        self._mkdirs(os.path.dirname(folder))
        try:
            self.real.mkdir(folder)
        except FileExistsError:
            pass

    def _bring(self, original: str, copy: str) -> None:
        """Copy an original file, folder or link into the world."""
        mode = self.real.lstat(original).st_mode
        if stat.S_ISLNK(mode):
            self.real.symlink(self.real.readlink(original), copy)
            self.has_link()
        elif stat.S_ISDIR(mode):
            self._mkdirs(copy)
            for name in self.real.listdir(original):
                if not self._there(os.path.join(copy, name)) and not self._there(os.path.join(copy, GONE + name)):
                    self._bring(os.path.join(original, name), os.path.join(copy, name))
        else:
            self._bring_file(original, copy, stat.S_IMODE(mode))

    def _bring_file(self, original: str, copy: str, mode: int) -> None:
        """Copy a file; other processes of the program see it whole or not at all, and what they have begun stays."""
        folder, name = os.path.split(copy)
        part = os.path.join(folder, f"{GONE}{name}.{os.getpid()}.{threading.get_ident()}")
        with self.open_real(original, "rb") as source, self.open_real(part, "wb") as target:
            shutil.copyfileobj(source, target)
        self.real.chmod(part, mode | stat.S_IRUSR | stat.S_IWUSR)
        try:
            self.real.link(part, copy)
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            self.real.replace(part, copy)
            return
        self.real.unlink(part)

    # -- deleting -----------------------------------------------------------------------------

    def forget(self, absolute: str) -> None:
        """Delete what the program sees at an absolute path: its copy for good, the original by a mark."""
        copy = self._copy(absolute)
        if self._there(copy):
            self._erase(copy)
        if self._there(absolute):
            self.mark(absolute)

    def mark(self, absolute: str) -> None:
        """Hide the original at an absolute path, and what is in it."""
        self._mkdirs(os.path.dirname(self._copy(absolute)))
        self.open_real(self._mark(absolute), "wb").close()

    def _erase(self, copy: str) -> None:
        if os.path.isdir(copy) and not os.path.islink(copy):
            for name in self.real.listdir(copy):
                self._erase(os.path.join(copy, name))
            self.real.rmdir(copy)
        else:
            self.real.unlink(copy)


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + os.sep)
