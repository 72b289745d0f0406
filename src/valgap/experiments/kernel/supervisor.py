"""Who asks of a process outside is refused: a small process beside the re-run answers the kernel for each call that names one.

No filter can know which numbers the program's own workers will have. So the kernel holds such a call (a signal, a priority, a
limit) and asks a process that stands outside (seccomp's notification, Linux 5.5): whether the one that is named is a child of the
re-run, or a child of one, or in its session. The numbers are in the call itself, where nobody can change them meanwhile.

Source: https://docs.kernel.org/userspace-api/seccomp_filter.html#userspace-notification
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import os
import platform
import re
import select
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from valgap.experiments.kernel.calls import call, forgo_privileges, number
from valgap.experiments.kernel.filter import NEW_LISTENER, SET_MODE_FILTER, SPEC_ALLOW, as_program, asked

RECEIVE, ANSWER = 0xC0502100, 0xC0182101
REQUEST, RESPONSE = struct.Struct("=QIIiIQ6Q"), struct.Struct("=QqiI")
CONTINUE = 1
READY = b"1"
LOOK_S = 5.0  # after which it is seen whether there is still someone to answer for
PROCESS, GROUP = 0, 1  # of setpriority; of ioprio_set they are one more
SINCE = (5, 5)  # older kernels know the question, and not the answer that lets a call go on


def begin() -> bool:
    """Have such a process, and the kernel ask it of this one and its children; False where the kernel cannot."""
    if number("seccomp") is None or release() < SINCE or not forgo_privileges():
        return False
    ours, its = socket.socketpair()
    root = os.getpid()
    between = os.fork()
    if between == 0:
        ours.close()  # else the other process would never see this end gone
        _stand_beside(its, root)
    os.waitpid(between, 0)
    its.close()
    with ours:
        if ours.recv(1) != READY:
            return False  # there is no room for another process
        try:
            listener = call(
                "seccomp", SET_MODE_FILTER, ctypes.c_ulong(SPEC_ALLOW | NEW_LISTENER), ctypes.byref(as_program(asked()))
            )
        except OSError:
            return False  # the other process ends with the pair of sockets
        try:
            ours.sendmsg([READY], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener]))])
            return ours.recv(1) == READY
        finally:
            os.close(listener)


def release() -> tuple[int, ...]:
    """The kernel's version, its first two numbers."""
    found = re.match(r"(\d+)\.(\d+)", platform.release())
    return tuple(int(n) for n in found.groups()) if found is not None else (0,)


def _stand_beside(its: socket.socket, root: int) -> None:
    """The process in between ends at once, so that the program has no child that it has not started."""
    try:
        if os.fork() == 0:
            os.setsid()
            _serve(its, root)
    finally:
        os._exit(0)


def _serve(its: socket.socket, root: int) -> None:
    its.send(READY)
    _, ancillary, _, _ = its.recvmsg(1, socket.CMSG_SPACE(4))
    if not ancillary:
        return
    kept = struct.unpack("i", ancillary[0][2])[0]
    its.send(READY)
    # Whoever waits for the end of the program's output need not wait for this one.
    listener = os.dup2(kept, 0, inheritable=False)
    for other in [int(n) for n in os.listdir("/proc/self/fd") if n != "0"]:
        with contextlib.suppress(OSError):
            os.close(other)
    answers = _Answers(root)
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while True:
        events = poll.poll(1000 * LOOK_S)
        if any(event & (select.POLLHUP | select.POLLERR) for _, event in events):
            return  # nobody is left
        if not events and not answers.anyone():
            return
        if events:
            _answer(listener, answers)


def _answer(listener: int, answers: _Answers) -> None:
    import fcntl  # Windows, where this module is imported as well, has none

    request = bytearray(REQUEST.size)
    with contextlib.suppress(OSError):  # who asked may be gone by now
        fcntl.ioctl(listener, RECEIVE, request)
        identity, caller, _, name, _, _, *arguments = REQUEST.unpack(request)
        allowed = answers.allows(name, caller, arguments)
        response = RESPONSE.pack(identity, 0, 0 if allowed else -errno.EPERM, CONTINUE if allowed else 0)
        fcntl.ioctl(listener, ANSWER, bytearray(response))


class _Answers:
    """What is allowed: ``root`` is the re-run's first process."""

    def __init__(self, root: int) -> None:
        self._root = root
        by_name: dict[str, Callable[[int, list[int]], bool]] = {
            "pidfd_send_signal": lambda caller, a: self._descriptor(caller, _signed(a[0])),
            "setpriority": lambda caller, a: self._of_kind(caller, a[0], _signed(a[1])),
            "ioprio_set": lambda caller, a: self._of_kind(caller, a[0] - 1, _signed(a[1])),
            "kill": lambda caller, a: self._one_or_group(caller, _signed(a[0])),
        }
        self._by_number = {number(name): allows for name, allows in by_name.items()}

    def allows(self, name: int, caller: int, arguments: list[int]) -> bool:
        """Whether the call reaches nothing but the program's own processes."""
        default = self._first
        return self._by_number.get(name, default)(caller, arguments)

    def anyone(self) -> bool:
        """Whether a process of the program is left, as far as can be seen."""
        return os.path.isdir(f"/proc/{self._root}") or any(self._own(int(p)) for p in os.listdir("/proc") if p.isdigit())

    def _first(self, caller: int, arguments: list[int]) -> bool:
        return self._may(caller, _signed(arguments[0]))

    def _may(self, caller: int, pid: int) -> bool:
        # What there is not may be asked for: the kernel says that there is none.
        return pid in (0, caller) or self._own(pid) or (pid > 0 and not os.path.isdir(f"/proc/{pid}"))

    def _one_or_group(self, caller: int, pid: int) -> bool:
        return self._group(caller, -pid) if pid < 0 else self._may(caller, pid)

    def _group(self, caller: int, group: int) -> bool:
        found = _state(caller)
        return group == 0 or (found is not None and found[1] == group) or (group > 1 and self._own(group))

    def _of_kind(self, caller: int, kind: int, who: int) -> bool:
        if kind == PROCESS:
            return self._may(caller, who)
        return kind == GROUP and self._group(caller, who)

    def _descriptor(self, caller: int, descriptor: int) -> bool:
        try:
            told = Path(f"/proc/{caller}/fdinfo/{descriptor}").read_text()
            place = os.readlink(f"/proc/{caller}/fd/{descriptor}")
        except OSError:
            return False
        named = next((line.split()[1] for line in told.splitlines() if line.startswith("Pid:")), place.rpartition("/")[2])
        return named.lstrip("-").isdigit() and (int(named) < 0 or self._own(int(named)))

    def _own(self, pid: int) -> bool:
        """Whether it comes from the first process, or the leader of its session does: an orphan has no other parent."""
        found = _state(pid)
        return self._descends(pid) or (found is not None and self._descends(found[2]))

    def _descends(self, pid: int) -> bool:
        while pid > 1 and pid != self._root:
            found = _state(pid)
            pid = found[0] if found is not None else 0
        return pid == self._root


def _state(pid: int) -> tuple[int, int, int] | None:
    """(parent, group, session) of a process or thread."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), int(fields[2]), int(fields[3])


def _signed(argument: int) -> int:
    """The lower half of an argument as the int that the kernel takes."""
    return struct.unpack("=i", struct.pack("=I", argument & 0xFFFFFFFF))[0]  # type: ignore[no-any-return]
