"""Keeps what valgap has imported apart from what the program imports under the same names."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from valgap.seams.hosting.after_import import found


class Backstage:
    """While a program runs, the modules of ours that its own folder shadows are hidden, so that it imports its own.

    A script beside a file ``click.py``, ``record.py`` or ``calendar.py`` expects that file. Under plain Python it would get
    it, except for the few modules that every interpreter starts with.
    """

    def __init__(self, entry: str | None) -> None:
        self._entry = entry
        self._hidden: dict[str, ModuleType] = {}
        self._names: set[str] = set()

    def hide(self) -> None:
        """Take the shadowed modules out of ``sys.modules``; ``sys.path`` must be the program's."""
        beside = _names_in(self._entry)
        ours = {name.partition(".")[0] for name in _imported_by_us()}
        for name in sorted(ours & beside):
            spec, loaded = found(name), getattr(sys.modules[name], "__spec__", None)
            # A folder without __init__.py shadows nothing: a package elsewhere comes before it.
            if spec is not None and spec.loader is not None and loaded is not None and spec.origin != loaded.origin:
                self._names.add(name)
        self._hidden = self._taken()

    @contextmanager
    def ours(self) -> Iterator[None]:
        """Inside, what was hidden is there again, in the place of the program's own."""
        theirs = self._taken()
        sys.modules.update(self._hidden)
        try:
            yield
        finally:
            self._hidden = self._taken()
            sys.modules.update(theirs)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside, what the program's folder shadows is imported from where it is installed: for after the program's end."""
        path = list(sys.path)
        with self.ours():
            if self._entry in sys.path:
                sys.path.remove(self._entry)
            shadows = {name for name in list(sys.modules) if self._shadows(name)}
            theirs = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in shadows}
            try:
                yield
            finally:
                sys.modules.update(theirs)
                sys.path[:] = path

    def _taken(self) -> dict[str, ModuleType]:
        names = [name for name in list(sys.modules) if name.partition(".")[0] in self._names]
        return {name: sys.modules.pop(name) for name in names}

    def _shadows(self, name: str) -> bool:
        """Whether this module comes from the program's folder, and another one would be found without that."""
        file = getattr(sys.modules[name], "__file__", None)
        if self._entry is None or name == "__main__" or "." in name or not isinstance(file, str):
            return False
        if not file.startswith(os.path.join(self._entry, name)):
            return False
        spec = found(name)
        return spec is not None and spec.origin != file


def _names_in(folder: str | None) -> set[str]:
    """The names that could be imported from a folder."""
    try:
        return {name.partition(".")[0] for name in os.listdir(folder)} if folder is not None else set()
    except OSError:
        return set()  # an archive: nobody gives one a name of ours


def _imported_by_us() -> list[str]:
    """What was imported since the interpreter was ready: ``site``, with all that it starts, is the last before a program."""
    names = list(sys.modules)
    return [name for name in names[names.index("site") + 1 if "site" in names else 0 :] if name != "__main__"]
