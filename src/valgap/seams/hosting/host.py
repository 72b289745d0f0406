"""Runs a stranger's script or module as ``__main__``, recorded, so that it sees what it would see under plain Python.

Imports neither torch nor numpy itself: a script may set environment variables before it imports torch, so torch must be
imported by the script; the seams are attached at that moment. What cannot be made equal is listed in docs/same_as_python.md.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import runpy
import sys
import threading
import types
from collections.abc import Callable, Sequence
from functools import partial
from importlib.machinery import BuiltinImporter, SourceFileLoader, SourcelessFileLoader
from typing import Any, NamedTuple

from valgap.errors import ScriptError
from valgap.seams.hosting.after_import import AfterImport, found, when_imported
from valgap.seams.hosting.backstage import Backstage
from valgap.seams.hosting.ending import Ending, ended_by, flush_both
from valgap.seams.hosting.session import Session

COMPILER = "torch._dynamo.eval_frame"  # imported late or never: nothing in sys.meta_path waits for it


class Target(NamedTuple):
    """What is to be run. A script is compiled here, everything else is found by runpy, as ``python -m`` does it."""

    argv: list[str]
    path_entry: str | None  # what Python puts first into sys.path; None under -P and -I
    file: str  # its __file__, as far as it can be known before it is found
    given: list[str]  # the same call as arguments of Python
    source: bytes | None = None
    module: str | None = None


def script_target(script: str, arguments: Sequence[str]) -> Target:
    """The script, the folder or the archive with a ``__main__.py`` at this path. Raises ScriptError if there is none."""
    call = [script, *arguments]
    if script == "-":
        raise ScriptError("a program on standard input cannot be recorded: save it to a file, from which it can be run again")
    if not os.path.exists(script):
        raise ScriptError(f"{script} is no file: give the path of a Python training script, or -m MODULE")
    file = _absolute(script)
    importer = _importer(file)
    if importer is not None:
        if importer.find_spec("__main__") is None:
            raise ScriptError(
                f"{script} is a folder without __main__.py: give the path of a Python training script, or -m MODULE"
            )
        return Target(call, file, os.path.join(file, "__main__.py"), call, module="__main__")
    try:
        with io.open_code(file) as stream:
            source = stream.read()
    except OSError as error:
        raise ScriptError(f"cannot read {script}: {error.strerror}") from error
    entry = os.path.dirname(os.path.realpath(file))
    return Target(call, None if _safe_path() else entry, file, call, source=source)


def module_target(name: str, arguments: Sequence[str]) -> Target:
    """The module that ``python -m NAME`` would run. Raises ScriptError if there is none.

    Only its first part is looked for: to find the rest, packages would have to be imported, and nobody listens yet.
    """
    here = os.getcwd()
    before = list(sys.path)
    sys.path[:] = [*([] if _safe_path() else [here]), *_path_of_others()]
    try:
        spec = found(name.partition(".")[0])
    except (ImportError, ValueError) as error:
        raise ScriptError(f"no module named {name}: {error}") from error
    finally:
        sys.path[:] = before
    if spec is None:
        raise ScriptError(f"no module named {name} that can be run: -m takes a module as `python -m` does")
    file = _likely_file(spec, name)
    return Target([file, *arguments], None if _safe_path() else here, file, ["-m", name, *arguments], module=name)


def _likely_file(spec: Any, name: str) -> str:
    """The file of a module in a package, by the packages' folders alone."""
    folders = list(spec.submodule_search_locations or ())
    if not folders:
        return str(spec.origin)
    stem = os.path.join(folders[0], *name.split(".")[1:])
    return os.path.join(stem, "__main__.py") if os.path.isdir(stem) else f"{stem}.py"


def _absolute(path: str) -> str:
    """As Python makes the name of a script absolute: nothing is resolved."""
    return os.path.abspath(path) if os.name == "nt" else os.path.join(os.getcwd(), path)


def _importer(path: str) -> Any:
    """What imports from this folder or archive; None for a file that is neither."""
    for hook in sys.path_hooks:
        try:
            return hook(path)
        except ImportError:
            continue
    return None


def _safe_path() -> bool:
    return bool(getattr(sys.flags, "safe_path", sys.flags.isolated))


def _path_of_others() -> list[str]:
    """sys.path without its first entry, the folder of the valgap command, which Python put there for us."""
    return sys.path[0 if _safe_path() else 1 :]


def execute(target: Target, session: Session) -> Ending:
    """Run the program to its end, and leave its world as it is for its threads and exit handlers."""
    backstage = Backstage(target.path_entry)
    hooks = {name: partial(_behind, backstage, hook) for name, hook in session.after_imports().items()}
    compiler = hooks.pop(COMPILER)
    torch = hooks["torch"]

    def torch_is_there() -> None:
        torch()
        when_imported(sys.modules["torch"], COMPILER.removeprefix("torch."), compiler)

    finder = AfterImport({**hooks, "torch": torch_is_there})
    main = _main_module(target)
    _set_the_stage(target, main)
    backstage.hide()
    sys.meta_path.insert(0, finder)
    session.start()
    if "torch" in sys.modules:
        torch_is_there()
    code, error = _compiled(target)
    if error is None:
        try:
            if code is None:
                # What the interpreter itself calls for -m, folders and archives: its frames stand in their tracebacks.
                runpy._run_module_as_main(str(target.module), target.module != "__main__")  # type: ignore[attr-defined]
            else:
                exec(code, main.__dict__)
        except BaseException as raised:
            error = raised
        flush_both()
        ending = ended_by(error)
        if code is not None and not isinstance(error, SystemExit):
            ending.forget(main, "__file__", "__cached__")
    else:
        ending = _told_by_python(target, error)
    ending.backstage = backstage
    ending.elsewhere = os.getpid() != session.process
    if finder in sys.meta_path:
        sys.meta_path.remove(finder)
    if not ending.elsewhere:
        _wait_for_threads()
    return ending


def _compiled(target: Target) -> tuple[types.CodeType | None, BaseException | None]:
    """(the code of a script, why there is none); neither where runpy finds the code."""
    if target.source is None:
        return None, None
    try:
        if target.file.endswith(".pyc"):
            return SourcelessFileLoader("__main__", target.file).get_code("__main__"), None
        return compile(target.source, target.file, "exec", dont_inherit=True), None
    except Exception as error:
        return None, error


def _told_by_python(target: Target, error: BaseException) -> Ending:
    """Let the interpreter itself say what is wrong with a script: its words depend on how it reads a file."""
    import subprocess

    options = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    try:
        # Not by subprocess, whose commands are followed: this one would be recorded in place of itself, for ever.
        status = os.spawnv(os.P_WAIT, sys.executable, [sys.executable, *options, *target.given])
    except OSError:
        return ended_by(error)
    return Ending(status, f"{type(error).__name__}: {error}")


def _main_module(target: Target) -> types.ModuleType:
    """A new ``__main__`` with the names that this interpreter gives one, in its order."""
    main = types.ModuleType("__main__")
    names: dict[str, Any] = {"__annotations__": {}, "__builtins__": builtins}
    main.__dict__.update({name: names[name] for name in vars(sys.modules["__main__"]) if name in names})
    if target.module is None:
        kind = SourcelessFileLoader if target.file.endswith(".pyc") else SourceFileLoader
        main.__dict__.update(__loader__=kind("__main__", target.file), __file__=target.file, __cached__=None)
    else:
        main.__loader__ = BuiltinImporter
    return main


def _set_the_stage(target: Target, main: types.ModuleType) -> None:
    rest = _path_of_others()
    sys.orig_argv = [*_interpreter_options(), *target.given]
    sys.path[:] = rest if target.path_entry is None else [target.path_entry, *rest]
    sys.argv = list(target.argv) if target.module in (None, "__main__") else ["-m", *target.argv[1:]]
    sys.modules["__main__"] = main


def _interpreter_options() -> list[str]:
    """How the interpreter was started, without our command: ``python -O -m valgap run x.py`` gives ``python -O``."""
    own = sys.argv[1:]
    lead, rest = sys.orig_argv[: -len(own)], sys.orig_argv[-len(own) :]
    if rest != own or len(lead) < 2:
        return [sys.executable]  # called by a program
    if getattr(sys.modules["__main__"], "__spec__", None) is None:
        return lead[:-1]
    cluster = lead[-1] if lead[-1].startswith("-") else lead[-2]  # -mvalgap, or -m valgap
    options = cluster[: cluster.index("m")] if "m" in cluster else cluster
    return [*lead[: lead.index(cluster)], *([options] if options != "-" else [])]


def _behind(backstage: Backstage, hook: Callable[[], None]) -> None:
    with backstage.ours():
        hook()


def _wait_for_threads() -> None:
    """Wait for the program's own threads, as Python does at its end: a training in one of them belongs to the record.

    The idle threads of pools end only after that. Ctrl-C ends the waiting; Python itself waits on.
    """
    pools = getattr(sys.modules.get("concurrent.futures.thread"), "_threads_queues", ())
    here = threading.current_thread()
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            running = [t for t in threading.enumerate() if t is not here and not t.daemon and t not in pools]
            if not running:
                return
            running[0].join()
