"""Which image files the program itself opens, and which folders it lists: where the images lie that it keeps in memory.

An audit hook of Python tells: nothing of the program's is patched. It sees files that Python opens (Pillow, imageio, numpy), not
what C++ opens by itself (OpenCV, torchvision.io); the folders that such a program lists are seen.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

from valgap.suffixes import SUFFIXES

MOST_FILES, MOST_FOLDERS = 20_000, 400
INSTALLED = tuple(os.path.join(p, "") for p in {sys.prefix, sys.base_prefix, sys.exec_prefix})  # noqa: PTH118
LISTS = ("os.listdir", "os.scandir")

_listening: ImagesOpened | None = None
_hooked = False


class ImagesOpened:
    """Image files in the order in which this process first opened them, and the folders that it listed."""

    def __init__(self) -> None:
        self._files: dict[str, None] = {}
        self._folders: dict[str, None] = {}
        self._process = os.getpid()

    def start(self) -> None:
        """Listen; the hook stays with the process for good and then tells nobody."""
        global _listening, _hooked
        _listening = self
        if not _hooked:
            sys.addaudithook(_hook)
            _hooked = True

    def stop(self) -> None:
        """Listen no more."""
        global _listening
        if _listening is self:
            _listening = None

    def facts(self) -> dict[str, Any]:
        """``opened`` and ``listed``, absolute paths, for the record; nothing in a process that was forked."""
        here = os.getpid() == self._process
        return {"opened": list(self._files), "listed": list(self._folders)} if here else {}

    def tell(self, event: str, path: Any, mode: Any = None) -> None:
        """A file is about to be opened, or a folder to be listed; images that are written (a plot) are none that are read."""
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if not isinstance(path, str):
            return
        if event == "open":
            if isinstance(mode, str) and any(c in mode for c in "wax+"):
                return
            if len(self._files) < MOST_FILES and path.lower().endswith(SUFFIXES):
                self._files[os.path.abspath(path)] = None  # noqa: PTH100
        elif len(self._folders) < MOST_FOLDERS:
            folder = os.path.abspath(path)  # noqa: PTH100
            if not folder.startswith(INSTALLED):
                self._folders[folder] = None


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if _listening is not None and (event == "open" or event in LISTS) and args:
        with contextlib.suppress(Exception):  # whatever happens here must not reach the program
            _listening.tell(event, *args[:2])
