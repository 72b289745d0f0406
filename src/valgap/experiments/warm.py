"""A program that has been run up to its first loader, and from which arms are forked.

Run as ``python -m valgap.experiments.warm FOLDER SOCKET``. Imports, data sets and weights are paid once. Nothing of an arm has
happened by then: seeds begin to differ, and interventions to act, with the first loader. Each fork goes on into a record, a
scratch world and a folder for temporary files of its own; what was written before the fork is there, as a copy or below its own.

A program is not forked where that could change what it does: once CUDA is in use, beside threads or processes of its own (a
fork has none of them), with files open that it writes to (forks would write into one), or from a folder of its scratch world.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import json
import os
import random
import select
import signal
import socket
import stat
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valgap.experiments.arm import SPEC_FILE, ArmSpec, make_acts, run_arm
from valgap.experiments.offline import environment

if TYPE_CHECKING:
    from valgap.experiments.sandbox import Sandbox
    from valgap.seams.hosting.session import Session

ARMS = "arms"  # below the folder of the program that waits
POLL_S = 0.02
LEADER_S = 2.0
DECODE_S = 0.03  # for which the program that waits decodes what its arms have decoded before it listens again
MAX_WORLD_BYTES = 256 << 20  # of what the program wrote before it is forked, and every fork copies
PR_SET_PDEATHSIG = 1
# Acts that draw take their seed from torch's generator as it is right after the import, where it is another one each time.
OF_ACTS = 67_280_421
HARMLESS_THREADS = ("TMonitor",)  # draws progress bars anew


class Nest:
    """The program's process while it waits to be forked, and each fork of it.

    Args:
        spec: of the waiting program, with what acts before its first loader.
        folder: of it; arms are made in ``folder/arms``.
        connection: to the diagnosis: a line of JSON for each arm, and for what became of it.
    """

    def __init__(self, spec: ArmSpec, folder: Path, connection: socket.socket) -> None:
        self.spec, self.folder, self.connection = spec, folder, connection
        self.arm: tuple[ArmSpec, Path] | None = None  # in a fork: what it is
        self.session: Session
        self.sandbox: Sandbox
        self._children: dict[int, str] = {}
        self._rest = b""

    def unfit(self, reason: str) -> None:
        """End the process: from here no arm can begin."""
        self._send({"unfit": reason})
        os._exit(0)

    def wait(self) -> None:
        """Fork an arm for every line that comes; returns in the forks alone."""
        reason = _unfit(self.session, self.folder)
        if reason:
            self.unfit(reason)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        gc.freeze()
        since = time.time()
        decoded = self.session.acting.decoded if self.session.acting is not None else None
        self._send({"ready": True})
        while True:
            more = self._children and decoded is not None and decoded.decode_like_arms(DECODE_S)
            readable, _, _ = select.select([self.connection], [], [], 0.0 if more else POLL_S)
            self._reap()
            if readable and self._serve(since):
                return

    def _serve(self, since: float) -> bool:
        """Read requests; True in a fork."""
        data = self.connection.recv(1 << 16)
        if not data:
            self._end()
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            request: dict[str, Any] = json.loads(line)
            spec = ArmSpec.from_json(json.loads((Path(request["folder"]) / SPEC_FILE).read_text()))
            reason = self._too_late(spec)
            if reason:
                self._send({"refused": request["folder"], "reason": reason})
                continue
            numbers = random.getstate()
            pid = os.fork()
            if pid == 0:
                random.setstate(numbers)  # Python gives a forked process random numbers of its own
                self._become(spec, request, time.time() - since)
                return True
            _wait_until_leader(pid)
            self._children[pid] = request["folder"]
            self._send({"started": request["folder"], "pid": pid})
        return False

    def _too_late(self, spec: ArmSpec) -> str:
        """Why this arm cannot begin here: something of it acts before the first batch."""
        acting = self.session.acting
        early = acting.early if acting is not None else set()
        more = replace(spec, interventions=[i for i in spec.interventions if i not in self.spec.interventions])
        if not early or not (more.interventions or more.weights):
            return ""
        if early - {"loading"}:
            return "the program calls its model before its first batch"
        from valgap.seams.acting.act import Act

        acts = make_acts(more)
        late = any(type(a).loading is not Act.loading for a in acts)
        return "it changes weights that are loaded before the first batch" if late else ""

    def _become(self, spec: ArmSpec, request: dict[str, Any], waited: float) -> None:
        """This process is a fork: it becomes the arm."""
        # A session of its own: where a kernel shares processors out among sessions, beside other programs, each arm has its share
        # as one that begins anew has.
        os.setsid()
        die_with_parent()
        self.connection.close()
        gc.unfreeze()
        folder, temporary = Path(request["folder"]), Path(request["temporary"])
        output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for number in (1, 2):
            os.dup2(output, number)
        os.close(output)
        _own_offsets()
        self.session.move(folder / "record", waited)
        features = Path(request["features"])
        shared = (features,) if features.is_dir() else ()
        self.sandbox.move(folder / "scratch", (folder / "record", temporary, *shared))
        before = os.environ.get("TMPDIR")
        os.environ.update(environment((folder / "scratch").resolve(), temporary))
        if tempfile.tempdir == before:
            tempfile.tempdir = None
        if "multiprocessing.process" in sys.modules:  # which keeps a folder of its own for sockets
            sys.modules["multiprocessing.process"].current_process()._config.pop("tempdir", None)
        import torch

        if request["threads"] > 1:
            torch.set_num_threads(request["threads"])
        acting = self.session.acting
        assert acting is not None
        state = torch.get_rng_state()
        torch.default_generator.manual_seed(OF_ACTS + spec.seed)
        acts = make_acts(spec, list(zip(self.spec.interventions, acting.acts, strict=True)))
        torch.set_rng_state(state)
        if acting.decoded is not None:
            acting.decoded.forked()
        acting.become(acts, spec.seed, spec.epochs, spec.fraction, spec.answers_only)
        if spec.answers_only:
            self.session.hear_no_files()
        self.arm = (spec, folder)

    def _reap(self) -> None:
        for pid in list(self._children):
            try:
                ended, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                ended, status = pid, 0  # the program's own handler has reaped it
            if ended:
                self._send({"ended": self._children.pop(pid), "status": os.waitstatus_to_exitcode(status)})

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self.connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self._end()

    def _end(self) -> None:
        """The diagnosis is gone, or needs no more arms."""
        for pid in self._children:
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
        os._exit(0)


def _wait_until_leader(pid: int) -> None:
    """Wait until a fork has a group of its own, by which it can be ended; not for ever, since it may have ended itself."""
    end = time.monotonic() + LEADER_S
    with contextlib.suppress(OSError):
        while os.getpgid(pid) != pid and time.monotonic() < end:
            time.sleep(0.001)


def _unfit(session: Session, folder: Path) -> str:
    """Why the program cannot be forked as it is now; empty where it can."""
    torch = sys.modules["torch"]
    if torch.cuda.is_initialized():
        return "CUDA is in use"
    others = [t for t in threading.enumerate() if t is not threading.main_thread()]
    known = [t for t in others if type(t).__name__ in HARMLESS_THREADS]
    tasks = [t.name for t in Path("/proc/self/task").iterdir()]
    if len(known) < len(others) or len(tasks) > 1 + len(known):
        return "it has threads of its own"
    if any(Path(f"/proc/self/task/{t}/children").read_text().split() for t in tasks):
        return "it has processes of its own"
    if os.path.realpath(Path.cwd()).startswith(os.fspath(folder / "scratch")):
        return "it works in a folder that it made"
    if any(_writes(number) for number in _regular_files() if number > 2 and number != session.writer.descriptor):
        return "it writes to a file that is open"
    world = folder / "scratch" / "world"
    if sum(f.lstat().st_size for f in world.rglob("*")) > MAX_WORLD_BYTES:
        return "it wrote too much before its first batch"
    return ""


def _regular_files() -> list[int]:
    found = []
    for name in [f.name for f in Path("/proc/self/fd").iterdir()]:
        try:
            if stat.S_ISREG(os.fstat(int(name)).st_mode):
                found.append(int(name))
        except OSError:
            continue  # the folder's own
    return found


def _writes(number: int) -> bool:
    return fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY


def _own_offsets() -> None:
    """Open files are opened anew, where they stand: forks would else read on from each other's places."""
    for number in _regular_files():
        if number <= 2 or _writes(number):
            continue
        again = os.open(f"/proc/self/fd/{number}", os.O_RDONLY | os.O_CLOEXEC)
        os.lseek(again, os.lseek(number, 0, os.SEEK_CUR), os.SEEK_SET)
        os.dup2(again, number, inheritable=os.get_inheritable(number))
        os.close(again)


def die_with_parent() -> None:
    """The kernel ends this process with the one that started it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def main() -> None:
    """The waiting program's process."""
    folder = Path(sys.argv[1]).resolve()
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(sys.argv[2])
    die_with_parent()
    spec = ArmSpec.from_json(json.loads((folder / SPEC_FILE).read_text()))
    sys.exit(run_arm(spec, folder, Nest(spec, folder, connection)))


if __name__ == "__main__":
    main()
