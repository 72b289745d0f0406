"""The filter of system calls, worked through by another interpreter: what it says of each call, without making any."""

from __future__ import annotations

import errno
import itertools
import platform
import re
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from valgap.experiments.kernel import filter
from valgap.experiments.kernel.calls import MACHINES, NUMBERS, number
from valgap.experiments.kernel.filter import ALLOW, ERRNO, NOTIFY, Code, Held

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in filter.AUDIT_ARCH, reason="the filter is of these machines"
)
EVERY = [Held(*which) for which in itertools.product((True, False), repeat=6)]
TCP, UDP, RAW = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW
MPTCP, FASTOPEN = 262, 0x20000000


HEADERS = {
    "x86_64": ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"),
    "aarch64": ("/usr/include/asm-generic/unistd.h",),  # those that newer machines share
}


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_are_those_of_the_kernel_s_headers(machine: str) -> None:
    header = next((path for path in map(Path, HEADERS[machine]) if path.is_file()), None)
    if header is None:
        pytest.skip("no headers of the kernel for this machine")
    known = {name: int(n) for name, n in re.findall(r"#define\s+__NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())}
    ours = {name: numbers[MACHINES[machine]] for name, numbers in NUMBERS.items()}
    assert {name: n for name, n in ours.items() if n is not None and name in known} == {n: known[n] for n in ours if n in known}
    assert len(known.keys() & ours.keys()) > 80


def test_newer_calls_have_one_number_everywhere() -> None:
    newer = {name: numbers for name, numbers in NUMBERS.items() if max(n or 0 for n in numbers) >= 424}
    assert len(newer) > 10 and all(x86 == arm for x86, arm in newer.values())


def says(code: Code, name: str, arguments: Sequence[int] = (), architecture: int | None = None, offset: int = 0) -> int:
    """What the kernel would do: the machine of linux/filter.h, as far as it is used."""
    found = number(name)
    assert found is not None
    words = [found + offset, architecture or filter.AUDIT_ARCH[platform.machine()], 0, 0]
    for argument in [*arguments, *(0,) * (6 - len(arguments))]:
        words += [argument & 0xFFFFFFFF, argument >> 32 & 0xFFFFFFFF]
    accumulator = place = 0
    while True:
        operation, true, false, constant = code[place]
        place += 1
        if operation == 0x06:
            return constant
        if operation == 0x20:
            accumulator = words[constant // 4]
        elif operation == 0x54:
            accumulator &= constant
        else:
            holds = {0x15: accumulator == constant, 0x35: accumulator >= constant, 0x45: bool(accumulator & constant)}[operation]
            place += true if holds else false


def refused(code: Code, name: str, *arguments: int) -> int:
    """With which error; 0 where it is allowed."""
    found = says(code, name, arguments)
    assert found == ALLOW or found & 0xFFFF0000 == ERRNO
    return found & 0xFFFF if found != ALLOW else 0


def test_every_program_ends_and_fits() -> None:
    for code in [filter.asked(), *map(filter.program, EVERY)]:
        assert len(code) < 4096
        for place, (operation, true, false, _) in enumerate(code):
            assert operation == 0x06 or place + 1 + max(true, false) < len(code)
            assert max(true, false) < 256


@pytest.mark.parametrize("held", EVERY, ids=str)
def test_what_is_refused_on_every_system(held: Held) -> None:
    code = filter.program(held)
    for name in filter.REFUSED:
        if number(name) is not None:
            assert refused(code, name) == errno.EPERM, name
    assert refused(code, "io_uring_setup") == errno.ENOSYS
    assert refused(code, "kill", 0xFFFFFFFF, 9) == errno.EPERM and refused(code, "kill", 5, 9) == refused(code, "kill", 0, 9) == 0
    assert refused(code, "unshare", 0x10000000) == refused(code, "unshare", 0x40000000 | 0x200) == errno.EPERM
    assert refused(code, "unshare", 0x200) == 0  # files of one's own
    assert refused(code, "ioctl", 0, 0x5412) == errno.EPERM and refused(code, "ioctl", 0, 0x5413) == 0
    assert says(code, "sendto", architecture=0x40000003) == ERRNO | errno.ENOSYS
    if platform.machine() == "x86_64":
        assert says(code, "sendto", offset=0x40000000) == ERRNO | errno.ENOSYS
    for tracing in filter.TRACING:
        assert (refused(code, tracing) == 0) == held.tracing
    for shared in filter.SYSTEM_V:
        assert (refused(code, shared) == 0) == held.ipc
    assert (refused(code, "fcntl", 3, 8, 5) == 0) == held.signals and refused(code, "fcntl", 3, 4, 0) == 0


@pytest.mark.parametrize("held", EVERY, ids=str)
def test_sockets_by_what_else_guards(held: Held) -> None:
    code = filter.program(held)

    def of(family: int, kind: int, protocol: int = 0) -> int:
        return refused(code, "socket", family, kind | socket.SOCK_CLOEXEC, protocol)

    assert of(socket.AF_UNIX, TCP) == of(socket.AF_UNIX, UDP) == of(socket.AF_NETLINK, RAW) == 0
    assert of(socket.AF_NETLINK, RAW, 9) and of(socket.AF_PACKET, RAW) and of(40, TCP) and of(38, TCP) and of(43, TCP)
    for family in (socket.AF_INET, socket.AF_INET6):
        assert (of(family, UDP) == 0) == held.network
        assert (of(family, RAW, 1) == 0) == held.network
        assert (of(family, TCP, MPTCP) == 0) == held.network
        assert (of(family, TCP) == 0) == (of(family, TCP, 6) == 0) == (held.network or held.tcp)
    for name, place in (("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3)):
        arguments = [0] * place + [FASTOPEN | 0x4000]
        assert (refused(code, name, *arguments) == 0) == held.network
        assert refused(code, name, *[0] * place, 0x4000) == 0


@pytest.mark.parametrize("supervised", [True, False])
def test_limits_of_others(supervised: bool) -> None:
    code = filter.program(Held(True, True, True, True, True, supervised))
    assert refused(code, "prlimit64", 0, 7, 1) == refused(code, "prlimit64", 5, 7, 0) == 0
    for address in (1, 1 << 32, (1 << 32) + 1):
        assert (refused(code, "prlimit64", 5, 7, address) == 0) == supervised


def test_what_is_asked_about() -> None:
    code = filter.asked()
    for name in filter.NAMING:
        assert says(code, name, (5,)) == NOTIFY and says(code, name, (0xFFFFFFFF,)) == NOTIFY and says(code, name, (0,)) == ALLOW
    assert says(code, "pidfd_send_signal", (0,)) == NOTIFY
    process, group, user = 0, 1, 2
    assert says(code, "setpriority", (process, 0)) == says(code, "setpriority", (group, 0)) == ALLOW
    assert says(code, "setpriority", (process, 5)) == says(code, "setpriority", (group, 5)) == NOTIFY
    # Root is user 0.
    assert says(code, "setpriority", (user, 0)) == says(code, "ioprio_set", (user + 1, 0)) == NOTIFY
    assert says(code, "ioprio_set", (process + 1, 0)) == says(code, "ioprio_set", (group + 1, 0)) == ALLOW
    assert says(code, "socket", (2, 1, 0)) == ALLOW
