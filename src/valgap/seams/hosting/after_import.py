"""Tells when a module has been imported, with no frame of ours on the stack while it is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import FileFinder, ModuleSpec
from pathlib import Path
from typing import Any


class AfterImport:
    """A finder for ``sys.meta_path`` that calls a function right after a module of a given name has been imported.

    It leaves ``sys.meta_path`` when all of its modules were found. Modules of a package that is there already are better
    waited for by ``when_imported``.
    """

    def __init__(self, callbacks: dict[str, Callable[[], None]]) -> None:
        self._callbacks = dict(callbacks)
        self._asking: set[str] = set()

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The spec that the other finders give, watched; None for other modules."""
        if fullname not in self._callbacks or fullname in self._asking:
            return None
        self._asking.add(fullname)
        try:
            spec = found(fullname, path, target)
        finally:
            self._asking.discard(fullname)
        if spec is not None and spec.loader is not None:
            _watch(spec, self._imported)
        return spec

    def _imported(self, fullname: str) -> None:
        callback = self._callbacks.pop(fullname, None)
        if not self._callbacks and self in sys.meta_path:
            sys.meta_path.remove(self)
        if callback is not None:
            callback()


def found(fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
    """The spec that the import of this module would use; nothing is imported."""
    for finder in list(sys.meta_path):
        spec = finder.find_spec(fullname, path, target) if hasattr(finder, "find_spec") else None
        if spec is not None:
            return spec
    return None


def when_imported(package: Any, name: str, callback: Callable[[], None]) -> None:
    """Call back once ``NAME`` of a package that is there has been imported; nothing of it shows in ``sys.meta_path``.

    The finder of the package's folder, which Python keeps, watches the one spec that it gives.
    """
    fullname = f"{package.__name__}.{name}"
    if fullname in sys.modules:
        callback()
        return
    folder = str(Path(package.__path__[0]).joinpath(*name.split(".")[:-1]))
    finder: Any = sys.path_importer_cache.get(folder)
    if finder is None:
        finder = next((f for f in map(_asked(folder), sys.path_hooks) if f is not None), None)
    if not isinstance(finder, FileFinder):
        sys.meta_path.insert(0, AfterImport({fullname: callback}))
        return
    sys.path_importer_cache[folder] = finder
    find = finder.find_spec

    def find_spec(wanted: str, target: Any = None) -> ModuleSpec | None:
        spec = find(wanted, target)
        if wanted == fullname and spec is not None:
            _watch(spec, imported)
        return spec

    def imported(_: str) -> None:
        finder.__dict__.pop("find_spec", None)
        callback()

    finder.find_spec = find_spec  # type: ignore[method-assign,assignment]


def _asked(folder: str) -> Callable[[Any], Any]:
    def ask(hook: Any) -> Any:
        try:
            return hook(folder)
        except ImportError:
            return None

    return ask


def _watch(spec: ModuleSpec, imported: Callable[[str], None]) -> None:
    """Call back when the module of this spec is there.

    The import machinery sets ``spec._initializing`` to False after the module's code has run. A loader of ours around the code
    would stand in every traceback of it. Libraries that only ask for a spec set nothing.
    """
    plain = type(spec)

    class Watched(plain):  # type: ignore[misc,valid-type]
        @property
        def _initializing(self) -> bool:
            return bool(self.__dict__.get("_initializing", False))

        @_initializing.setter
        def _initializing(self, value: bool) -> None:
            begun = self._initializing
            self.__dict__["_initializing"] = value
            module = sys.modules.get(self.name)
            if begun and not value and module is not None and getattr(module, "__spec__", None) is self:
                self.__class__ = plain
                imported(self.name)

    spec.__class__ = Watched
