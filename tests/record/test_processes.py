"""Asking for a process never sends it anything, on any system."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import psutil
import pytest

from valgap.record.processes import ask_for


def gone() -> int:
    """The number of a process that has ended and was waited for."""
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as child:
        pass
    return child.pid


@pytest.mark.parametrize("system", [sys.platform, "win32"])
def test_a_process_is_there_or_gone(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    ended = gone()
    there = psutil.pids()
    monkeypatch.setattr(sys, "platform", system)
    if system == "win32":
        monkeypatch.setattr(psutil, "pid_exists", there.__contains__)  # on this system it asks by os.kill itself
        monkeypatch.setattr(os, "kill", lambda *one: sent.append(one))
    ask_for(os.getpid())
    with pytest.raises(ProcessLookupError):
        ask_for(ended)
    assert sent == []
