"""Runs a stranger's script or module as ``__main__``, recorded. Imports neither torch nor numpy itself.

A script may set environment variables before it imports torch, so torch must be imported by the script: an import
hook attaches the seams at that moment.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import io
import os
import sys
import traceback
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valgap.errors import ScriptError
from valgap.seams.session import Session

INTERRUPTED = 130


@dataclass(frozen=True)
class Target:
    """What is to be run, compiled, with the module that it will be."""

    module: types.ModuleType
    code: types.CodeType | None
    compile_error: SyntaxError | None
    argv: list[str]
    path_entry: str


def script_target(script: str, arguments: Sequence[str]) -> Target:
    """The script at this path. Raises ScriptError if there is none."""
    file = Path(script)
    if not file.is_file():
        kind = "a folder" if file.is_dir() else "no file"
        raise ScriptError(f"{script} is {kind}: give the path of a Python training script, or -m MODULE")
    module = types.ModuleType("__main__")
    module.__file__ = str(file)
    module.__dict__["__builtins__"] = __builtins__
    with io.open_code(str(file.resolve())) as stream:
        source = stream.read()
    return _compiled(module, source, str(file), [script, *arguments], str(file.resolve().parent))


def module_target(name: str, arguments: Sequence[str]) -> Target:
    """The module that ``python -m NAME`` would run. Raises ScriptError if there is none."""
    here = os.getcwd()  # noqa: PTH109
    sys.path.insert(0, here)
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
    except (ImportError, ValueError) as error:
        raise ScriptError(f"no module named {name}: {error}") from error
    finally:
        sys.path.remove(here)
    if spec is None or spec.loader is None or not isinstance(spec.loader, importlib.abc.InspectLoader):
        raise ScriptError(f"no module named {name} that can be run: -m takes a module as `python -m` does")
    module = types.ModuleType("__main__")
    module.__spec__ = spec
    module.__file__ = spec.origin
    module.__package__ = spec.parent
    module.__loader__ = spec.loader
    source = spec.loader.get_source(spec.name)
    if source is None:
        raise ScriptError(f"module {name} has no Python source")
    origin = str(spec.origin)
    return _compiled(module, source.encode(), origin, [origin, *arguments], here)


def _compiled(module: types.ModuleType, source: bytes, file: str, argv: list[str], entry: str) -> Target:
    try:
        return Target(module, compile(source, file, "exec", dont_inherit=True), None, argv, entry)
    except SyntaxError as error:
        return Target(module, None, error, argv, entry)


class AfterImport(importlib.abc.MetaPathFinder):
    """Calls a function right after a module of a given name has been imported."""

    def __init__(self, callbacks: dict[str, Callable[[], None]]) -> None:
        self._callbacks = dict(callbacks)
        self._asking: set[str] = set()

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """The spec that the other finders give, with a callback behind its loader; None for other modules."""
        if fullname not in self._callbacks or fullname in self._asking:
            return None
        self._asking.add(fullname)
        try:
            spec = self._found_by_others(fullname, path, target)
        finally:
            self._asking.discard(fullname)
        loader: Any = spec.loader if spec is not None else None
        if loader is None:
            return spec
        execute = loader.exec_module

        def exec_module(module: Any) -> None:
            del loader.exec_module  # the loader is as it was
            execute(module)
            # Only now: libraries also ask for the spec of torch without importing it.
            callback = self._callbacks.pop(fullname, None)
            if callback is not None:
                callback()

        loader.exec_module = exec_module
        return spec

    @staticmethod
    def _found_by_others(fullname: str, path: Any, target: Any) -> importlib.machinery.ModuleSpec | None:
        for finder in list(sys.meta_path):
            spec = finder.find_spec(fullname, path, target) if hasattr(finder, "find_spec") else None
            if spec is not None:
                return spec
        return None


def execute(target: Target, session: Session) -> tuple[int, str | None]:
    """(exit status, error in one line): run the program to its end, exactly as Python would.

    Its traceback goes to standard error without our frames. SystemExit is its status; Ctrl-C is 130.
    """
    finder = AfterImport(session.after_imports())
    saved = sys.modules["__main__"], sys.argv, list(sys.path)
    rest = _without_our_folder(sys.path)
    sys.meta_path.insert(0, finder)
    sys.modules["__main__"] = target.module
    sys.argv = list(target.argv)
    sys.path[:] = [target.path_entry, *rest]
    session.start()
    try:
        if target.compile_error is not None:
            raise target.compile_error
        assert target.code is not None
        exec(target.code, target.module.__dict__)
        return 0, None
    except SystemExit as stop:
        return _exit_status(stop)
    except BaseException as error:
        _print_traceback(error)
        return INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1, f"{type(error).__name__}: {error}"
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)
        sys.modules["__main__"], sys.argv, sys.path[:] = saved[0], saved[1], saved[2]


def _without_our_folder(path: list[str]) -> list[str]:
    """sys.path without its first entry, the folder of the valgap command (Python put it there for us)."""
    return path[1:] if path and Path(path[0]) == Path(sys.argv[0]).resolve().parent else path


def _exit_status(stop: SystemExit) -> tuple[int, str | None]:
    if stop.code is None:
        return 0, None
    if isinstance(stop.code, int):
        return stop.code & 0xFF, None if stop.code == 0 else f"SystemExit: {stop.code}"
    print(stop.code, file=sys.stderr)
    return 1, f"SystemExit: {stop.code}"


OUR_FILES = str(Path(__file__).parent)


def _print_traceback(error: BaseException) -> None:
    _drop_our_frames(error, set())
    trace = error.__traceback__
    if sys.excepthook is not sys.__excepthook__:
        sys.excepthook(type(error), error, trace)  # the script's own
    else:
        traceback.print_exception(type(error), error, trace)


def _drop_our_frames(error: BaseException | None, done: set[int]) -> None:
    """Take the frames of this package out of an exception's traceback and of those behind it."""
    if error is None or id(error) in done:
        return
    done.add(id(error))
    kept = []
    trace = error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).parent != Path(OUR_FILES):
            kept.append(trace)
        trace = trace.tb_next
    for one, following in zip(kept, [*kept[1:], None], strict=True):
        one.tb_next = following
    error.__traceback__ = kept[0] if kept else None
    _drop_our_frames(error.__cause__, done)
    _drop_our_frames(error.__context__, done)
