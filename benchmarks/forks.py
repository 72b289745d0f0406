"""`python ARGUMENTS` in a fork of this process, which has imported what takes long to import. What imports leave behind is there.

Parts of make bench-trust start thousands of programs: an interpreter that imports torch, timm and the rest takes 9 s of the
processor, a fork of it 0.1 s. Neither rich nor any command of valgap is imported here.
"""

from __future__ import annotations

import atexit
import importlib
import os
import runpy
import signal
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

IMPORTED = ("torch", "torchvision", "timm", "cv2", "scipy.optimize", "sklearn.linear_model", "sklearn.model_selection", "pandas")


def import_once() -> None:
    """What forks find imported."""
    for name in IMPORTED:
        importlib.import_module(name)


def start(
    arguments: Sequence[str],
    where: Path,
    variables: Mapping[str, str],
    out: Path,
    err: Path,
    first: Callable[[], None] | None = None,
) -> int:
    """The number of a process in a session of its own. ``first`` is called in it, with its variables set."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        os.environ.clear()
        os.environ.update(variables)
        tempfile.tempdir = None
        os.chdir(where)
        handles = [
            os.open("/dev/null", os.O_RDONLY),
            *(os.open(f, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) for f in (out, err)),
        ]
        for number, handle in enumerate(handles):
            os.dup2(handle, number)
            os.close(handle)
        sys.stdin, sys.stdout, sys.stderr = (open(n, m, closefd=False) for n, m in ((0, "r"), (1, "w"), (2, "w")))  # noqa: SIM115
        sys.stderr.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
        sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[misc]
        if first is not None:
            first()
    except BaseException as error:
        os.write(2, f"no start: {error}\n".encode())
        os._exit(125)
    _run(list(arguments))


def wait(pid: int, until: float) -> int:
    """The exit status (negative: a signal) of a process of ours, at the latest then; 124 of one that had to be killed."""
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return 124


def _run(arguments: list[str]) -> NoReturn:
    """As Python runs its command line, to the end of the process."""
    main = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = __builtins__
    status: Any = 0
    try:
        _execute(arguments, main)
    except SystemExit as end:
        status = end.code
        if status is not None and not isinstance(status, int):
            sys.stderr.write(f"{status}\n")
            status = 1
    except BaseException as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        status = 130 if isinstance(error, KeyboardInterrupt) else 1
    for end in (threading._shutdown, atexit._run_exitfuncs, sys.stdout.flush, sys.stderr.flush):  # type: ignore[attr-defined]
        try:
            end()
        except BaseException as error:
            os.write(2, f"at the end: {error!r}\n".encode())
    os._exit((status or 0) & 0xFF)


def _execute(arguments: list[str], main: types.ModuleType) -> None:
    sys.modules["__main__"] = main
    sys.orig_argv = [sys.executable, *arguments]
    if arguments[0] == "-m":
        sys.path.insert(0, str(Path.cwd()))
        sys.argv = [arguments[1], *arguments[2:]]
        runpy._run_module_as_main(arguments[1])  # type: ignore[attr-defined]
        return
    file = os.path.join(Path.cwd(), arguments[0])  # noqa: PTH118 (as Python names it)
    sys.path.insert(0, os.path.dirname(os.path.realpath(file)))  # noqa: PTH120
    sys.argv = list(arguments)
    main.__dict__.update(__file__=file, __cached__=None, __annotations__={})
    exec(compile(Path(file).read_bytes(), file, "exec", dont_inherit=True), main.__dict__)
