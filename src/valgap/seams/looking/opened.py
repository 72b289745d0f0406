"""Watches which files a data set opens while it reads an item, by Python, OpenCV or torchvision, and which members of archives.

Functions are patched only while somebody watches, after the program's own work. An audit hook sees Python's files without a patch
(images_opened.py), and nothing of what C++ opens.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

# Owner, name, and whether the owner is a class, for functions whose first argument names a file.
FILES = (
    ("builtins", "open"),
    ("io", "open"),
    ("os", "open"),
    ("cv2", "imread"),
    ("cv2", "imreadmulti"),
    ("torchvision.io.image", "read_file"),
    ("torchvision.io", "read_file"),
    ("torchvision.io.image", "read_image"),
    ("torchvision.io", "read_image"),
)
# What would change files. A data set that meets an error may put the file away, and a look is no error of the file.
CHANGES = (("os", "remove"), ("os", "unlink"), ("os", "rename"), ("os", "replace"), ("shutil", "move"))
INSTALLED = tuple({os.path.join(p, "lib") for p in (sys.prefix, sys.base_prefix, sys.exec_prefix)})  # noqa: PTH118
NEVER = (".py", ".pyc", ".so", ".pyd", ".dll")


class Looked(BaseException):
    """Ends the reading of an item as soon as it is known which file it is; no ``except Exception`` may take it for a failure."""


class OpenedFiles:
    """While it is entered: ``names`` of the files that were opened, and of members of archives as ``archive!member``.

    Args:
        readers: objects that read; their modules, and all of the program's own, may keep such functions under names of theirs.
    """

    def __init__(self, readers: Iterable[Any] = ()) -> None:
        self._modules = {type(reader).__module__ for reader in readers} | {module for module, _ in FILES} | {"__main__"}
        self.names: list[str] = []
        self._stop_at = 0  # how many names are wanted; 0: all
        self._undo: list[Callable[[], None]] = []
        self._inside = False
        self._attached: set[str] = set()  # modules

    def of(self, read: Callable[[], Any]) -> list[str]:
        """The names that a whole reading opens."""
        self.names, self._stop_at = [], 0
        read()
        if self._attach():  # the reading itself imported what reads; only worker processes may have had it
            self.names = []
            read()
        return self.names

    def first_of(self, read: Callable[[], Any], count: int) -> list[str] | None:
        """The first ``count`` names, where the reading ends as soon as they are known; None where it opened fewer, or went on."""
        self.names, self._stop_at = [], count
        try:
            read()
        except Looked:
            return self.names if len(self.names) == count else None
        except Exception:
            return None
        finally:
            self._stop_at = 0
        return None

    def __enter__(self) -> OpenedFiles:
        self._attach()
        for module, name in CHANGES:
            original = getattr(importlib.import_module(module), name)
            self._patch(sys.modules[module], name, self._harmless(original))
        return self

    def __exit__(self, *_: object) -> None:
        while self._undo:
            self._undo.pop()()
        self._attached = set()

    def _attach(self) -> bool:
        """Watch what is imported and not watched yet; whether there was any."""
        fresh = [m for m in {m for m, *_ in (*FILES, *MEMBERS)} - self._attached if m in sys.modules]
        self._attached.update(fresh)
        originals: dict[int, Any] = {}
        for module, name in FILES:
            original = getattr(sys.modules[module], name, None) if module in fresh else None
            if original is not None and id(original) not in originals and not hasattr(original, "_valgap_watched"):
                originals[id(original)] = (original, self._watched(original))
        if originals:
            self._exchange(originals)
        for module, kind, name, told in MEMBERS:
            owner = getattr(sys.modules[module], kind, None) if module in fresh else None
            if owner is not None and name in vars(owner):
                self._patch(owner, name, self._member(vars(owner)[name], told))
        return bool(fresh)

    def _exchange(self, originals: dict[int, Any]) -> None:
        """Wherever a module keeps one of these functions, under whatever name: programs import them in many ways."""
        for title, module in list(sys.modules.items()):
            own = getattr(module, "__dict__", None)
            if not isinstance(own, dict) or title.startswith("valgap."):
                continue
            file = own.get("__file__")
            if title not in self._modules and (not isinstance(file, str) or file.startswith(INSTALLED)):
                continue  # thousands of them, and it takes as long as reading the items
            for name, value in list(own.items()):
                found = originals.get(id(value))
                if found is not None and value is found[0]:
                    self._patch(module, name, found[1])

    def _patch(self, owner: Any, name: str, new: Any) -> None:
        original = vars(owner)[name]
        setattr(owner, name, new)
        self._undo.append(lambda: setattr(owner, name, original))

    def _watched(self, original: Any) -> Any:
        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return original(*args, **kwargs)
            name = args[0] if args else next((kwargs[k] for k in ("file", "path", "filename", "input") if k in kwargs), None)
            if original in (builtins_open, os_open) and _writes(original, args, kwargs):
                if self._stop_at:
                    raise Looked
                return original(*args, **kwargs)
            self._tell(name)
            self._inside = True  # what opens a file may do so by another of these functions
            try:
                return original(*args, **kwargs)
            finally:
                self._inside = False

        call._valgap_watched = True  # type: ignore[attr-defined]
        return call

    def _member(self, original: Any, told: Callable[[Any, Any], str]) -> Any:
        @functools.wraps(original)
        def call(owner: Any, member: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._inside and not _writes(original, (None, *args), kwargs):
                self._tell(told(owner, member))
            return original(owner, member, *args, **kwargs)

        return call

    def _harmless(self, original: Any) -> Any:
        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._stop_at:
                raise Looked
            return original(*args, **kwargs)

        return call

    def _tell(self, name: Any) -> None:
        if isinstance(name, bytes):
            name = os.fsdecode(name)
        if not isinstance(name, (str, os.PathLike)):
            return
        text = os.fspath(name)
        if isinstance(text, bytes):
            text = os.fsdecode(text)
        if text.lower().endswith(NEVER) or text.startswith(("/proc/", "/dev/", "/sys/")):
            return
        self.names.append(text)
        if self._stop_at and len(self.names) >= self._stop_at:
            raise Looked


builtins_open, os_open = builtins.open, os.open


def _writes(original: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    mode = args[1] if len(args) > 1 else kwargs.get("mode", kwargs.get("flags", "r"))
    if isinstance(mode, int) and original is os_open:
        return bool(mode & (os.O_WRONLY | os.O_RDWR))
    return isinstance(mode, str) and any(c in mode for c in "wax+")


def _of_tar(archive: Any, member: Any) -> str:
    name = archive.name or getattr(getattr(archive, "fileobj", None), "name", "") or ""
    return f"{name}!{getattr(member, 'name', member)}"


def _of_zip(archive: Any, member: Any) -> str:
    return f"{archive.filename or ''}!{getattr(member, 'filename', member)}"


def _of_hdf(dataset: Any, index: Any) -> str:
    place = f"[{index}]" if not isinstance(index, (tuple, slice)) and index is not Ellipsis else ""
    return f"{dataset.file.filename}!{dataset.name}{place}"


MEMBERS: tuple[tuple[str, str, str, Callable[[Any, Any], str]], ...] = (
    ("tarfile", "TarFile", "extractfile", _of_tar),
    ("zipfile", "ZipFile", "open", _of_zip),
    ("h5py", "Dataset", "__getitem__", _of_hdf),
)
