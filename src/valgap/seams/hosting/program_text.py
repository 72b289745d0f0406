"""The text of the program's own files: what differs between a run that was good and one that is not is often a line."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

# A file of a program is rarely longer; of a longer one the digest is kept.
MAX_TEXT = 1 << 18
MAX_FILES = 200
MAX_ALL = 1 << 21
# Folders within a program's own that hold other people's packages.
FOREIGN = ("site-packages", "dist-packages")
OURS = str(Path(__file__).parents[1])


class ProgramText:
    """The files of one program: the script as it starts, and when it has ended the modules that it imported from its folder."""

    def __init__(self, script: str, module: str | None) -> None:
        self._entry = _entry(script, module)
        self._folder = str(self._entry.parent if self._entry is not None and module is None else Path.cwd())
        self._known: set[str] = set()
        self._size = 0

    def first(self) -> Iterator[dict[str, Any]]:
        """The body of the script's line, where it is a file."""
        if self._entry is not None:
            yield from self._line(str(self._entry), entry=True)

    def rest(self) -> Iterator[dict[str, Any]]:
        """Those of its own modules."""
        # Not getattr: some modules load others when they are asked for what they do not have.
        files = [vars(m).get("__file__") for m in list(sys.modules.values()) if isinstance(m, ModuleType)]
        inside = self._folder.rstrip(os.sep) + os.sep
        for file in sorted({f for f in files if isinstance(f, str)}):
            path = os.path.abspath(file)  # noqa: PTH100 (resolving links would name another place)
            own = path.startswith(inside) and not path.startswith(OURS) and not any(n in path for n in FOREIGN)
            if own and path.endswith(".py") and len(self._known) < MAX_FILES:
                yield from self._line(path, entry=False)

    def _line(self, path: str, entry: bool) -> Iterator[dict[str, Any]]:
        if path in self._known:
            return
        self._known.add(path)
        try:
            raw = Path(path).read_bytes()
        except OSError:
            return
        kept = len(raw) <= MAX_TEXT and self._size + len(raw) <= MAX_ALL
        self._size += len(raw) if kept else 0
        name = os.path.relpath(path, self._folder) if not entry else Path(path).name
        text = raw.decode("utf-8", "replace") if kept else None
        yield {"path": name, "digest": hashlib.sha256(raw).hexdigest(), "text": text, "entry": entry}


def _entry(script: str, module: str | None) -> Path | None:
    """The script's file, absolute; None where there is none (a notebook, a module that cannot be told)."""
    if module is None:
        path = Path(os.path.abspath(script))  # noqa: PTH100
        return path if path.is_file() else None
    stem = Path.cwd() / module.replace(".", os.sep)
    return next((p for p in (stem.with_suffix(".py"), stem / "__main__.py") if p.is_file()), None)
