"""What macOS and Windows lack is done without. Nothing here runs there: modules and functions that they lack are taken away."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from valgap.experiments.kernel.guards import MISSING

pytestmark = pytest.mark.takes(25)
# warm.py waits to be forked, on Linux alone; the others need libraries, which have modules of their own for each system.
LEFT_OUT = ("valgap.experiments.warm", "valgap.integrations", "valgap.agents.server")
PRETEND = """
import ctypes, importlib, json, os, pkgutil, signal, socket, sys
import psutil, scipy.stats, sklearn, timm, torch, torchvision, typer, rich.console, yaml, jinja2, pydantic, safetensors.torch

system, left_out, own = sys.argv[1], tuple(json.loads(sys.argv[2])), sys.argv[3]
whole = ctypes.CDLL


def library(name, *args, **kwargs):
    if name is None and system == "win32":
        raise TypeError("LoadLibrary() argument 1 must be str, not None")
    return object() if name is None else whole(name, *args, **kwargs)  # without prctl and syscall


ctypes.CDLL = library
sys.platform = system
for name in ("sched_getaffinity", "pidfd_open", "posix_fadvise"):
    vars(os).pop(name, None)
if system == "win32":
    for name in ("fcntl", "resource", "pty", "termios", "tty", "pwd", "grp"):
        sys.modules[name] = None
    for name in ("fork", "posix_spawn", "killpg", "getpgid", "setsid", "getsid", "geteuid", "getuid", "mkfifo", "pread",
                 "nice", "register_at_fork", "statvfs", "chown", "lchown", "setxattr", "WNOHANG", "O_CLOEXEC", "O_NOFOLLOW"):
        vars(os).pop(name, None)
    for name in ("SIGKILL", "SIGHUP", "SIGSTOP", "pthread_sigmask"):
        vars(signal).pop(name, None)
    vars(socket).pop("AF_UNIX", None)
import valgap.errors

failed = {}
for module in pkgutil.walk_packages(valgap.__path__, "valgap.", onerror=lambda name: None):
    if not module.name.startswith(left_out) and not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except Exception as error:
            failed[module.name] = repr(error)
from pathlib import Path
from valgap.experiments.forks import can_fork
from valgap.experiments.janitor import FOLDER, Janitor
from valgap.experiments.sandbox import Sandbox
from valgap.experiments.terminal import StandardInput
from valgap.seams.hosting.environment import _peak_memory

told = {"failed": failed, "forked": can_fork(), "memory": _peak_memory() is not None}
janitor = Janitor()
janitor.knows(FOLDER, own + "/nothing")
told["janitor"] = janitor._pid > 0
janitor.leave()
told["terminal"] = StandardInput((80, 24)).file >= 0
outside = Path(own, "outside.txt")
outside.write_text("before")
try:
    guards = Sandbox(Path(own, "scratch")).enter()
except valgap.errors.ValgapError as error:
    told["refused"] = str(error)
else:
    outside.write_text("after")
    told |= {"missing": guards.missing(), "seen": outside.read_text()}
print(json.dumps(told))
"""


@pytest.mark.parametrize("system", [pytest.param("darwin", marks=pytest.mark.slow), "win32"])
def test_what_is_not_there_is_done_without(system: str, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    command = [sys.executable, "-c", PRETEND, system, json.dumps(LEFT_OUT), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    posix = system == "darwin"
    assert told.pop("failed") == {}
    if posix:
        assert sorted(told.pop("missing")) == sorted(MISSING.values()), "the kernel is said to hold nothing"
        assert told.pop("seen") == "after" and (tmp_path / "outside.txt").read_text() == "before", "Python's functions do"
    else:
        assert "WSL" in told.pop("refused")
    assert told == {"forked": False, "memory": posix, "janitor": posix, "terminal": posix}
