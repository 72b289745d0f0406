"""Python programs in processes of their own: fresh ones, or forked from one in which torch is imported already.

An interpreter that imports torch, timm and the rest takes 9 s of processor time; a fork of it takes 0.1 s. Our own modules,
half a second in every process otherwise, are there as well; what a recorded script must not find (typer and its kin) is not.
Programs whose start is not what a test is about are forked. Their import under the recorder is tested with fresh processes.
"""

from __future__ import annotations

import atexit
import functools
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import IO, Any

PRELOADED = [
    "torch", "torchvision", "torch._dynamo", "scipy.special", "scipy.stats", "sklearn.linear_model", "timm", "rich.console",
    "valgap.cli.launch", "valgap.diagnosis", "valgap.experiments.runner", "valgap.experiments.sandbox", "valgap.report.terminal",
    "valgap.features.backbone", "valgap.training", "valgap.exhibits", "valgap.edits", "tests.processes", "tests.forkserver_ready",
]  # fmt: skip

REAL_POPEN = subprocess.Popen


def fresh(command: Sequence[object], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """What ``python COMMAND...`` printed, in a new interpreter."""
    whole = [sys.executable, *map(str, command)]
    return subprocess.run(whole, capture_output=True, text=True, cwd=cwd, check=False)


def forked(
    command: Sequence[object], cwd: Path | None = None, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """What ``python COMMAND...`` printed, in a fork of an interpreter that has torch; COMMAND is FILE or -m MODULE first.

    What ``valgap diagnose`` and ``valgap preflight`` run is forked as well.
    """
    whole = [str(c) for c in command]
    if whole[:2] == ["-m", "valgap.cli"] and whole[2:3] in (["diagnose"], ["preflight"]):
        whole[1] = "tests.experiments.forked_arms"
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        process = _start(whole, cwd or Path.cwd(), (out, err), variables)
        process.join()
        return subprocess.CompletedProcess(whole, process.exitcode, out.read_text(), err.read_text())


class ForkedPopen:
    """Stands in for ``subprocess.Popen([python, "-m", MODULE, ...], stdout=FILE, stderr=STDOUT)`` with a forked process.

    Commands whose output goes elsewhere (ctypes asks ldconfig for a library) are started as ever.
    """

    def __new__(cls, command: Sequence[object], stdout: Any = None, **named: Any) -> Any:
        return object.__new__(cls) if hasattr(stdout, "name") else REAL_POPEN(command, stdout=stdout, **named)

    def __init__(
        self,
        command: Sequence[object],
        stdout: IO[bytes],
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        **_: Any,
    ) -> None:
        output = Path(stdout.name)
        self._process = _start([*map(str, command[1:])], cwd or Path.cwd(), (output, output), env)
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode  # type: ignore[no-any-return]

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("forked", timeout or 0)
        return self.returncode


def _start(command: list[str], cwd: Path, outputs: tuple[Path, Path], variables: Mapping[str, str] | None = None) -> Any:
    context = _context()
    forkserver.ensure_running()
    server = forkserver._forkserver._forkserver_address  # type: ignore[attr-defined]
    arguments = (command, os.fspath(cwd), [*map(os.fspath, outputs)], dict(variables or {}), server)
    process = context.Process(target=_child, args=arguments)
    process.start()
    return process


@functools.cache
def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    if _server is not None:  # in a fork, whose own forks come from the same interpreter
        own: Any = forkserver._forkserver  # type: ignore[attr-defined]
        own._forkserver_address, own.ensure_running = _server, lambda: None
        forkserver.ensure_running = own.ensure_running
    return context


_server: str | None = None


def _child(command: list[str], cwd: str, outputs: list[str], variables: dict[str, str], server: str) -> None:
    global _server
    _server = server
    os.setsid()
    multiprocessing.set_start_method(None, force=True)  # the platform's own for what the program starts, not ours
    os.environ.update(variables)
    tempfile.tempdir = None  # that of the variables, not of the process that was forked
    os.chdir(cwd)
    for number, path in enumerate(outputs, 1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    named = command[0] == "-m"
    sys.path.insert(0, cwd if named else os.fspath(Path(command[0]).resolve().parent))
    sys.argv = command[1:] if named else command
    atexit._clear()  # those of the process that was forked
    try:
        if named:
            runpy.run_module(command[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(command[0], run_name="__main__")
    except SystemExit:
        raise
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        raise SystemExit(130 if isinstance(error, KeyboardInterrupt) else 1) from None
    finally:
        atexit._run_exitfuncs()  # a forked process of multiprocessing ends without them
