"""The diagnosis's side of programs that wait to be forked (warm.py)."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from valgap.experiments.arm import SPEC_FILE, ArmSpec
from valgap.experiments.janitor import FOLDER, GROUP, Janitor
from valgap.experiments.temporary import temporary_folder

POLL_S = 0.05
END_S = 5.0
# Interventions that act before the first batch: the program that waits has them already. None of them draws random numbers.
EARLY = ("load_weights", "keep_loaded")


def can_fork() -> bool:
    """Whether this system's arms can be forked: only Linux tells which threads and files a process has."""
    return sys.platform == "linux" and Path("/proc/self/task").is_dir()


def waiting_spec(spec: ArmSpec) -> ArmSpec:
    """The program that an arm of this kind can be forked from: with what acts before its first loader, and nothing else."""
    early = [i for i in spec.interventions if i.name in EARLY]
    plain = replace(spec, seed=0, epochs=0, fraction=1.0, interventions=early, closing=0.0, rescore=[])
    return replace(plain, weights="", ask_training=False, answers_only=False)


class Fork:
    """A forked arm, as ``subprocess.Popen`` tells of a process."""

    def __init__(self, nest: WaitingProgram, pid: int) -> None:
        self.nest, self.pid = nest, pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its status, None while it runs."""
        self.nest.listen()
        if self.returncode is None and self.nest.gone:
            self.returncode = -signal.SIGKILL  # with the process that it came from
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its status."""
        end = time.monotonic() + timeout if timeout is not None else None
        while self.poll() is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired("arm", timeout or 0.0)
            time.sleep(POLL_S)
        assert self.returncode is not None
        return self.returncode


class WaitingProgram:
    """A program on its way to its first loader, or waiting there."""

    def __init__(
        self,
        spec: ArmSpec,
        folder: Path,
        variables: Mapping[str, str],
        temporary: Path,
        janitor: Janitor,
        standard_input: int = subprocess.DEVNULL,
    ) -> None:
        self.folder, self.temporary, self.janitor = folder, temporary, janitor
        self.ready = self.gone = False
        self.reason = ""  # why it is gone
        shutil.rmtree(folder, ignore_errors=True)
        for name in ("scratch", "record", "arms"):
            (folder / name).mkdir(parents=True)
        (folder / SPEC_FILE).write_text(json.dumps(spec.to_json()))
        janitor.knows(FOLDER, folder)
        self._place = temporary_folder(janitor)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(os.fspath(self._place / "socket"))
        self._listener.listen(1)
        self._listener.setblocking(False)
        self._connection: socket.socket | None = None
        self._rest = b""
        self._arms: dict[str, Fork] = {}
        self._refused: dict[str, str] = {}
        command = [
            sys.executable,
            "-m",
            "valgap.experiments.warm",
            os.fspath(folder.resolve()),
            os.fspath(self._place / "socket"),
        ]
        with (folder / "output.txt").open("wb") as output:
            self.process = subprocess.Popen(
                command,
                stdin=standard_input,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(variables),
                start_new_session=True,
            )
        janitor.knows(GROUP, self.process.pid)

    def place(self, name: str) -> Path:
        """Where an arm lives while it runs."""
        return self.folder / "arms" / name

    def fork(self, name: str, temporary: Path, features: Path, threads: int, wait_s: float) -> Fork | str:
        """The arm whose spec lies in ``place(name)``, or why it cannot be forked."""
        folder = os.fspath(self.place(name).resolve())
        request = {"folder": folder, "temporary": str(temporary), "features": str(features.resolve()), "threads": threads}
        assert self._connection is not None
        try:
            self._connection.sendall(json.dumps(request).encode() + b"\n")
        except OSError:
            self.gone = True
        end = time.monotonic() + wait_s
        while folder not in self._arms:
            self.listen()
            if folder in self._refused:
                return self._refused.pop(folder)
            if self.gone or time.monotonic() > end:
                return self.reason or "its process has ended"
            time.sleep(POLL_S / 5)
        return self._arms[folder]

    def listen(self) -> None:
        """Take note of what its process has told."""
        if self.gone:
            return
        if self._connection is None:
            try:
                self._connection, _ = self._listener.accept()
                self._connection.setblocking(False)
            except BlockingIOError:
                self.gone = self.process.poll() is not None
                return
        while True:
            try:
                data = self._connection.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.gone = True
                return
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._heard(json.loads(line))

    def _heard(self, message: dict[str, Any]) -> None:
        if "ready" in message:
            self.ready = True
        elif "unfit" in message:
            self.reason = str(message["unfit"])
        elif "refused" in message:
            self._refused[message["refused"]] = str(message["reason"])
        elif "started" in message:
            self._arms[message["started"]] = Fork(self, int(message["pid"]))
            self.janitor.knows(GROUP, message["pid"])
        elif "ended" in message:
            arm = self._arms.pop(message["ended"])
            arm.returncode = int(message["status"])
            self.janitor.forgets(GROUP, arm.pid)

    def close(self) -> None:
        """End its process, and what runs there still, and remove what they wrote."""
        if self._connection is not None:
            self._connection.close()
        self._listener.close()
        try:
            self.process.wait(END_S if self.ready else 0.1)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(END_S)
        self.janitor.forgets(GROUP, self.process.pid)
        for arm in self._arms.values():
            with contextlib.suppress(OSError):
                os.killpg(arm.pid, signal.SIGKILL)
            self.janitor.forgets(GROUP, arm.pid)
        for folder in (self.folder, self.temporary, self._place):
            shutil.rmtree(folder, ignore_errors=True)
            self.janitor.forgets(FOLDER, folder)
        self.gone = True
