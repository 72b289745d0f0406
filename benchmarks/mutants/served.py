"""A pytest session that forks: once for each file of tests to see what they run, once for each mutant to see what they notice.

All tests are collected once, and torch and the rest are imported once. In a fork the mutant is put into the functions that are
there; where it is outside of functions, the fork forgets valgap and the tests and imports them anew. What a test starts as a
process of its own imports the mutated copy, or is forked in turn (tests/processes.py).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import json
import mmap
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import forkserver, util
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import pytest
from _pytest.tmpdir import TempPathFactory

from mutants.asked import MOST_S, Numbers

Report = dict[str, Any]
TRACED_S = MOST_S + 1.5  # seeing what a test runs takes longer than running it


class TooSlowError(BaseException):
    """Raised in a test by the clock."""


class Lines:
    """Which lines of the copy have run, in memory that forks share."""

    def __init__(self, root: Path, numbers: Numbers) -> None:
        self._start = {str(root / file): start for file, start in numbers.start.items()}
        self._ran = mmap.mmap(-1, numbers.total)
        self._total = numbers.total

    def watch(self) -> None:
        """From now on, in this process and its forks."""
        threading.settrace(self._call)
        sys.settrace(self._call)

    def taken(self) -> set[int]:
        """Those that ran since the last time."""
        data = self._ran[:]
        self._ran[:] = bytes(self._total)
        return {number for number, ran in enumerate(data) if ran}

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        start = self._start.get(frame.f_code.co_filename)
        if start is None:
            return None
        ran = self._ran
        ran[start + frame.f_code.co_firstlineno] = 1

        def line(frame: FrameType, event: str, argument: Any) -> Any:
            ran[start + frame.f_lineno] = 1
            return line

        return line


class Told:
    """A plugin that keeps what became of each test."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        self.whys: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """The worst of setup, call and teardown; the times of all three."""
        before = self.outcomes.get(report.nodeid, "passed")
        self.outcomes[report.nodeid] = "failed" if "failed" in (before, report.outcome) else max(before, report.outcome)
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self.whys.setdefault(
                report.nodeid, next((line[2:200] for line in report.longreprtext.splitlines() if line[:2] == "E "), "")
            )

    @property
    def failed(self) -> str | None:
        """The first test that failed."""
        return next((name for name, outcome in self.outcomes.items() if outcome == "failed"), None)


class Shared:
    """A plugin that keeps the lines of fixtures that serve several tests."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self.of: dict[str, set[int]] = {}
        self.before: set[int] = set()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        """Lines of what is set up for more than one test go to all of them."""
        if fixturedef.scope == "function":
            yield
            return
        self.before |= self._lines.taken()
        yield
        self.of.setdefault(fixturedef.argname, set()).update(self._lines.taken())


def import_once() -> None:
    """What programs that tests fork find imported (tests/processes.py), so that the forks of a fork begin at once."""
    for name in importlib.import_module("tests.processes").PRELOADED:
        importlib.import_module(name)


def adopt() -> None:
    """Have orphans of our processes become ours, so that none is left."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


def in_fork(act: Callable[[], Report], limit_s: float) -> Report | None:
    """What a fork answers, or None where it does not by then; nothing of it runs on."""
    with tempfile.TemporaryDirectory(prefix="mutant") as folder:
        answer = Path(folder) / "answer"
        child = os.fork()
        if child == 0:
            os.setsid()
            try:
                tempfile.tempdir = folder
                os.environ["TMPDIR"] = folder
                found = act()
                answer.with_suffix(".part").write_text(json.dumps(found), encoding="utf-8")
                answer.with_suffix(".part").rename(answer)
            except BaseException:
                (answer.parent / "error").write_text(traceback.format_exc())
            os._exit(0)
        until = time.monotonic() + limit_s
        while time.monotonic() < until and os.waitpid(child, os.WNOHANG)[0] == 0:
            time.sleep(0.005)
        _end_all()
        if answer.exists():
            return json.loads(answer.read_text(encoding="utf-8"))  # type: ignore[no-any-return]
        error = answer.parent / "error"
        ended = time.monotonic() < until
        return {"error": error.read_text() if error.exists() else "the process ended by itself"} if ended else None


def _end_all() -> None:
    for _ in range(3):
        left = psutil.Process().children(recursive=True)
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        for process in left:
            with contextlib.suppress(psutil.Error, ChildProcessError, OSError):
                os.waitpid(process.pid, 0)
        if not left:
            return


def settle(config: pytest.Config) -> None:
    """In a fork: folders of its own, and a server of forks that is forked from here, not started."""
    config._tmp_path_factory = TempPathFactory.from_config(config, _ispytest=True)  # type: ignore[attr-defined]
    real = util.spawnv_passfds

    def spawned(path: Any, arguments: Sequence[Any], handles: Sequence[int]) -> int:
        if "forkserver import main" not in str(arguments[-1]):
            return real(path, arguments, handles)
        child = os.fork()
        if child:
            return child
        try:
            exec(arguments[-1], {})
        finally:
            os._exit(0)

    util.spawnv_passfds = spawned


def serve(items: Sequence[pytest.Item]) -> None:
    """In a fork: begin the server of forks while nothing has changed yet, if any of these tests may want it."""
    if any("processes" in _text(item.path) for item in items):
        sys.modules["tests.processes"]._context()
        forkserver.ensure_running()


@functools.cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def run(items: Sequence[pytest.Item], told: Told, stop: bool) -> None:
    """Run these tests, one after the other; ``stop``: until the first fails."""
    for item, following in zip(items, [*items[1:], None], strict=True):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if stop and told.failed:
            return


def quiet(config: pytest.Config) -> None:
    """Nothing is printed from here on."""
    terminal = config.pluginmanager.getplugin("terminalreporter")
    if terminal is not None:
        terminal._tw._file = Path(os.devnull).open("w")  # noqa: SIM115


def seen(items: Sequence[pytest.Item], lines: Lines) -> Report:
    """In a fork: what each test of a file ran, how long it took, and what became of it."""
    config = items[0].config
    settle(config)
    quiet(config)
    told, shared = Told(), Shared(lines)
    config.pluginmanager.register(told)
    config.pluginmanager.register(shared)

    def late(number: int, frame: Any) -> None:
        raise TooSlowError

    signal.signal(signal.SIGALRM, late)
    lines.watch()
    serve(items)
    found = {}
    for item, following in zip(items, [*items[1:], None], strict=True):
        lines.taken()
        shared.before = set()
        signal.setitimer(signal.ITIMER_REAL, TRACED_S)
        try:
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        except TooSlowError:
            told.outcomes[item.nodeid] = "slow"
        signal.setitimer(signal.ITIMER_REAL, 0)
        own = lines.taken() | shared.before
        for name in getattr(item, "fixturenames", ()):
            own |= shared.of.get(name, set())
        name = item.nodeid
        outcome = told.outcomes.get(name, "failed")
        late_now = told.seconds.get(name, 0.0) >= TRACED_S - 0.5
        found[name] = {
            "outcome": "slow" if late_now else outcome,
            "seconds": round(told.seconds.get(name, 0.0), 3),
            "lines": sorted(own),
        }
        found[name]["why"] = told.whys.get(name, "")
    return found


def anew(names: Sequence[str], root: Path) -> tuple[Told, int]:
    """In a fork: collect and run tests in modules that are imported again, in this order."""
    told = Told()

    class Order:
        @pytest.hookimpl(trylast=True)
        def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
            places = {name: place for place, name in enumerate(names)}
            items.sort(key=lambda item: places.get(item.nodeid, len(places)))

    arguments = ["-q", "-x", "-p", "no:cacheprovider", "--rootdir", str(root), "-c", str(root / "pyproject.toml")]
    with Path(os.devnull).open("w") as nothing, contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
        status = pytest.main([*arguments, *names], plugins=[told, Order()])
    return told, int(status)
