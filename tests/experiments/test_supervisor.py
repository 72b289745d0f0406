"""The process that answers the kernel: it knows the program's own processes, and goes when there is nobody to answer for."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.takes(4), pytest.mark.skipif(sys.platform != "linux", reason="the kernel that asks is Linux")]

BEGIN = """
import os, signal, subprocess, sys
from valgap.experiments.kernel import supervisor
"""
ORPHANS = """
assert supervisor.begin()
def orphan(before):
    shell = f"{before} sleep 60 >/dev/null 2>&1 & echo $!"
    return int(subprocess.run(shell, shell=True, capture_output=True, check=True).stdout)
one = orphan('')
os.kill(one, 0)
os.kill(one, signal.SIGKILL)
os.sched_setaffinity(0, os.sched_getaffinity(0)); os.sched_setaffinity(os.getpid(), os.sched_getaffinity(0))
os.setpriority(os.PRIO_PROCESS, os.getpid(), 19); os.setpriority(os.PRIO_PGRP, 0, 19)
outside, nobody = int(sys.argv[2]), 54321
acts = (
    lambda: os.kill(outside, 0), lambda: os.pidfd_open(outside), lambda: os.kill(1, 0), lambda: os.killpg(os.getpgid(outside), 0),
    lambda: os.setpriority(os.PRIO_PROCESS, outside, 19), lambda: os.setpriority(os.PRIO_USER, nobody, 19),
)
for act in acts:
    try: act()
    except PermissionError: continue
    raise SystemExit('went through')
print('held')
"""
REFUSED = """
def refuse(name, *arguments):
    raise OSError(22, 'refused')
supervisor.call = refuse
assert not supervisor.begin()
print('held')
"""
OLD = """
supervisor.platform.release = lambda: '5.4.0-generic'
assert not supervisor.begin() and supervisor.release() == (5, 4)
os.kill(os.getppid(), 0)
print('held')
"""


def alive(mark: str) -> list[str]:
    """Processes that were started with this word."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_text().split("\0")
        except OSError:
            continue
        if mark in words:
            found.append(file.parent.name)
    return found


@pytest.mark.parametrize("code", [ORPHANS, REFUSED, OLD], ids=["orphans", "refused", "old"])
def test_it_knows_its_own_and_goes(code: str, tmp_path: Path) -> None:
    mark = str(tmp_path)
    outside = subprocess.Popen(["sleep", "60"], start_new_session=True)
    command = [sys.executable, "-c", BEGIN + code, mark, str(outside.pid)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, start_new_session=True, timeout=60)
    assert outside.poll() is None
    outside.kill()
    outside.wait()
    assert (done.returncode, done.stdout) == (0, "held\n"), done.stderr
    until = time.monotonic() + 10
    while alive(mark) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(mark)
