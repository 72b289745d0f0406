"""Signals of a re-run reach its own processes alone: said by Python's functions where the kernel does not say it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any


def keep_to_own_processes() -> None:
    """From now on ``os.kill`` and its kin end nothing but what this process and its children have started."""
    root, session = os.getpid(), os.getsid(0) if hasattr(os, "getsid") else 0

    def own(pid: int) -> bool:
        return pid in (0, os.getpid()) or (pid > 0 and (_session(pid) == session or root in _ancestors(pid)))

    def group(pid: int) -> bool:
        return pid in (0, os.getpgrp()) or own(pid)

    for name, known in (("kill", own), ("killpg", group), ("pidfd_open", own)):
        if hasattr(os, name):
            setattr(os, name, _kept(getattr(os, name), known, group))


def _kept(original: Callable[..., Any], own: Callable[[int], bool], group: Callable[[int], bool]) -> Callable[..., Any]:
    def function(pid: int, *arguments: Any) -> Any:
        if not (own(pid) if pid >= 0 else pid < -1 and group(-pid)) and _there(abs(pid)):
            raise PermissionError(errno.EPERM, "no signals to other programs in a re-run of valgap")
        return original(pid, *arguments)

    return function


def _there(pid: int) -> bool:
    """Whether there is such a process or group; -1 is every one."""
    try:
        os.getpgid(pid)
    except OSError:
        return (
            pid == 1 or any(_group(int(p)) == pid for p in os.listdir("/proc") if p.isdigit()) if os.path.isdir("/proc") else True
        )
    return True


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except OSError:
        return None


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _ancestors(pid: int) -> list[int]:
    import psutil

    try:
        return [p.pid for p in psutil.Process(pid).parents()]
    except psutil.Error:
        return []
