"""Namespaces: a network of the re-run's own with nothing in it but loopback, its own queues and memory, and its own mounts.

Root (with CAP_SYS_ADMIN) makes them as it is. Any other user makes a user namespace first, in which it is itself: files keep
their owner, and what belongs to others shows as ``nobody``. Some systems forbid that; then there are none.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from valgap.experiments.kernel import capabilities
from valgap.experiments.kernel.calls import call
from valgap.experiments.kernel.mounts import NO_MOUNTS, Mounts, make_private, sockets_of_others

NEW_USER, NEW_NETWORK, NEW_IPC, NEW_MOUNTS = 0x10000000, 0x40000000, 0x08000000, 0x00020000
SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8913, 0x8914
IFF_UP = 1


@dataclass(frozen=True)
class Namespaces:
    """Which there are."""

    network: bool = False
    ipc: bool = False
    mounts: Mounts = NO_MOUNTS

    def code(self) -> int:
        """As the exit status of a process that tried."""
        held = (self.network, self.ipc, *astuple(self.mounts))
        return sum(1 << place for place, one in enumerate(held) if one)


NONE = Namespaces()


def enter(folders: Sequence[str]) -> Namespaces:
    """Have namespaces of one's own, in which nothing but ``folders`` can be written to; NONE where the system forbids it.

    The process must have one thread. It goes on with the capabilities that are needed for it: drop them afterwards.
    """
    if sys.platform != "linux" or (os.geteuid() == 0 and not capabilities.has(capabilities.SYS_ADMIN)):
        return NONE  # root of a container would lose the files of other users in a user namespace
    return entered(folders, os.geteuid() != 0)


def entered(folders: Sequence[str], user: bool) -> Namespaces:
    """The same, in a user namespace or not."""
    # A system may give a user namespace and no rights in it: out of that there is no way back. So a fork tries first.
    tried = os.fork()
    if tried == 0:
        code = 0
        try:
            code = _enter(folders, user).code()
        finally:
            os._exit(code)
    _, status = os.waitpid(tried, 0)
    code = os.waitstatus_to_exitcode(status)
    return _enter(folders, user) if code > 0 and code & 1 else NONE


def _enter(folders: Sequence[str], user: bool) -> Namespaces:
    uid, gid, sockets = os.geteuid(), os.getegid(), sockets_of_others()
    try:
        call("unshare", (NEW_USER if user else 0) | NEW_NETWORK | NEW_IPC | NEW_MOUNTS)
        if user:
            Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
        _loopback_up()
    except OSError:
        return NONE
    return Namespaces(True, True, make_private(folders, sockets))


def _loopback_up() -> None:
    """Programs of several processes speak to each other over it."""
    import fcntl  # Windows, where this module is imported as well, has none

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        name = b"lo"
        found = fcntl.ioctl(one, SIOCGIFFLAGS, struct.pack("16sh14x", name, 0))
        flags = struct.unpack("16sh14x", found)[1]
        fcntl.ioctl(one, SIOCSIFFLAGS, struct.pack("16sh14x", name, flags | IFF_UP))
